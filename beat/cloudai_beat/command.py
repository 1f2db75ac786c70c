"""`cloudai epoch`: run the optimiser's epoch by hand, or look at what the latest did."""

from __future__ import annotations

from typing import Any

import click

from cloudai.cli.application import deployment
from cloudai.cli.output import (
    duration,
    heading,
    json_option,
    line,
    moment,
    number,
    print_fields,
    print_json,
    print_table,
)
from cloudai.history.errors import HistoryError
from cloudai_beat.control import epoch_now

#: Changes that are listed; the JSON form has more.
_CHANGES_SHOWN = 20


@click.group()
def epoch() -> None:
    """Run the optimiser's epoch, or show what the latest epochs did."""


@epoch.command(short_help="Learn from the history now.")
@click.option("--dry-run", is_flag=True, help="Publish nothing; say what would change.")
@json_option
@click.pass_context
def run(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Learn from the history now, in this process, and publish what was learned.

    The exit code is 1 when the epoch failed, or was skipped because another one runs.
    """
    report = epoch_now(deployment(ctx), trigger="command", may_publish=not dry_run).to_json()
    if as_json:
        print_json(report)
    else:
        _show(report)
    if report["outcome"] in ("failed", "skipped"):
        ctx.exit(1)


@epoch.command(short_help="What the latest epochs did.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Epochs, newest first.")
@json_option
@click.pass_context
def history(ctx: click.Context, limit: int, as_json: bool) -> None:
    """What the latest epochs did, from Redis; older ones from the history, if it answers."""
    state = deployment(ctx)
    reports = state.epochs.latest(limit)
    if len(reports) < limit:
        try:
            reports = _with_older(ctx, reports, limit)
        except HistoryError as error:
            click.echo(f"Older epochs are in the history only. {error}", err=True)
    if as_json:
        print_json({"epochs": reports})
        return
    if not reports:
        line("No epoch has run yet. `cloudai epoch run` runs one; the control process runs them at intervals.")
        return
    print_table(
        ["*at", "*outcome", ">*version", ">*records", ">*took", "*by", "what it did"],
        [
            [
                moment(report.get("at")),
                str(report.get("outcome", "")),
                str(report.get("version") or "-"),
                str(report.get("records", "")),
                duration(report.get("took_s")),
                str(report.get("trigger", "")),
                str(report.get("reason", "")),
            ]
            for report in reports
        ],
    )


def _with_older(ctx: click.Context, reports: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    from cloudai.history.store import HistoryStore

    known = {report.get("epoch_id") for report in reports}
    with HistoryStore.from_settings(deployment(ctx).settings) as store:
        older = [kept for kept in store.epochs(limit) if kept.get("epoch_id") not in known]
    return [*reports, *({name: v for name, v in kept.items() if name != "_id"} for kept in older)][:limit]


def _show(report: dict[str, Any]) -> None:
    samples = report["samples"]
    print_fields(
        {
            "outcome": f"{report['outcome']}: {report['reason']}",
            "version": f"{report['in_force']} -> {report['version']}" if report["version"] else "",
            "window": f"{duration(report['window_s'])}, {report['records']} records of {report['nodes']} nodes"
            + (", the newest of more" if report["capped"] else ""),
            "completions": ", ".join(f"{kind} {count}" for kind, count in samples.items()),
            "theta": f"{_numbers(report['theta_before'])} -> {_numbers(report['theta'])}",
            "took": duration(report["took_s"]),
        }
    )
    if report["search"]:
        line(f"Search: {report['search']['reason']}")
    _list("Kept", report["kept"])
    _list("Left out", [f"{count} x {reason}" for reason, count in report["skipped"].items()])
    _list("Problems", report["problems"])
    _list("Changes", report["changes"])


def _list(title: str, lines: list[str]) -> None:
    if lines:
        heading(title)
    for text in lines[:_CHANGES_SHOWN]:
        line(f"  {text}")
    if len(lines) > _CHANGES_SHOWN:
        line(f"  and {len(lines) - _CHANGES_SHOWN} more")


def _numbers(values: list[float]) -> str:
    return ", ".join(number(value) for value in values)
