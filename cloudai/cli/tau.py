"""`cloudai tau`: the learned runtimes."""

from __future__ import annotations

from typing import Any

import click

from cloudai.cli.application import deployment
from cloudai.cli.output import duration, json_option, number, print_json, print_table
from cloudai.deployment import Deployment
from cloudai.scheduling.task_types import INITIAL_TAU


@click.group()
def tau() -> None:
    """Show or set tau, the expected runtime of each task type."""


@tau.command()
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Tau of each type, and how many completions it was learned from."""
    rows = _report(deployment(ctx))
    if as_json:
        print_json({"tau": rows})
        return
    print_table(
        ["*type", ">*tau", ">*began as", ">*learned from"],
        [
            [row["type"], duration(row["tau_s"]), duration(row["initial_s"]), str(row["samples"])]
            for row in rows
        ],
    )


@tau.command(name="set")
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


def _report(state: Deployment) -> list[dict[str, Any]]:
    values, samples = state.tau.read(), state.tau.samples()
    initial = {str(kind): seconds for kind, seconds in INITIAL_TAU.items()}
    return [
        {"type": name, "tau_s": seconds, "initial_s": initial.get(name), "samples": samples.get(name, 0)}
        for name, seconds in values.items()
    ]
