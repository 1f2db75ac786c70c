"""`cloudai tau`: the learned runtimes."""

from __future__ import annotations

from typing import Any

import click

from cloudai.cli.application import deployment
from cloudai.cli.output import duration, json_option, number, print_json, print_table
from cloudai.cli.tau_history import history
from cloudai.deployment import Deployment
from cloudai.scheduling.learning import Learned
from cloudai.scheduling.task_types import INITIAL_TAU


@click.group()
def tau() -> None:
    """Show, set or look back at tau, the expected runtime of each task type."""


tau.add_command(history)


@tau.command(short_help="Tau of each type and family.")
@click.option(
    "--families",
    "limit",
    type=click.IntRange(0, 100_000),
    default=20,
    show_default=True,
    help="Families to show, those learned last.",
)
@json_option
@click.pass_context
def show(ctx: click.Context, limit: int, as_json: bool) -> None:
    """Tau of each type and family, its spread, and what it was learned from."""
    state = deployment(ctx)
    rows, families = _types(state), _families(state, limit)
    known = state.tau.family_count()
    if as_json:
        print_json({"tau": rows, "families": families, "families_known": known})
        return
    print_table(
        ["*type", ">*tau", ">*sigma", ">*began as", ">*learned from", ">*outliers"],
        [
            [row["type"], duration(row["tau_s"]), _spread(row), duration(row["initial_s"]), *_counts(row)]
            for row in rows
        ],
    )
    if not families:
        return
    after = state.settings.learning.family_after
    click.echo()
    print_table(
        ["family", "*type", ">*tau", ">*sigma", ">*learned from", ">*outliers", "*used"],
        [
            [row["family"], row["type"], duration(row["tau_s"]), _spread(row), *_counts(row),
             "yes" if row["used"] else f"from {after}"]
            for row in families
        ],
        title=f"Families, {len(families)} of {known}" if known > len(families) else "Families",
    )  # fmt: skip


@tau.command(
    name="set", short_help="Set tau of a type by hand.", context_settings={"ignore_unknown_options": True}
)
@click.argument("task_type", metavar="TYPE")
@click.argument("seconds", type=float)
@json_option
@click.pass_context
def set_(ctx: click.Context, task_type: str, seconds: float, as_json: bool) -> None:
    """Set tau of TYPE to so many SECONDS; learning goes on from there."""
    old = deployment(ctx).tau.set(task_type, seconds)
    if as_json:
        print_json({"type": task_type, "old_s": old, "new_s": seconds})
    else:
        click.echo(f"tau of {task_type}: {number(old, 6)} s -> {number(seconds, 6)} s")


def _types(state: Deployment) -> list[dict[str, Any]]:
    initial = {str(kind): seconds for kind, seconds in INITIAL_TAU.items()}
    return [
        {"type": name, "initial_s": initial.get(name), **_known(known)}
        for name, known in state.tau.learned().items()
    ]


def _families(state: Deployment, limit: int) -> list[dict[str, Any]]:
    after = state.settings.learning.family_after
    return [
        {"type": row.task_type, "family": row.family, **_known(row.learned), "used": row.learned.samples >= after}
        for row in (state.tau.families(limit) if limit else [])
    ]


def _known(known: Learned) -> dict[str, Any]:
    return {
        "tau_s": known.tau,
        "variance_s2": known.variance,
        "sigma_s": known.sigma,
        "samples": known.samples,
        "outliers": known.rejected,
    }


def _spread(row: dict[str, Any]) -> str:
    return duration(row["sigma_s"]) if row["samples"] else ""


def _counts(row: dict[str, Any]) -> tuple[str, str]:
    return str(row["samples"]), str(row["outliers"])
