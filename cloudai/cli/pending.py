"""`cloudai pending`: the waiting set."""

from __future__ import annotations

import click

from cloudai.cli.application import deployment
from cloudai.cli.output import duration, json_option, line, print_json, print_table
from cloudai.cli.task_report import pending_report


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Tasks shown at most."
)
@json_option
@click.pass_context
def pending(ctx: click.Context, limit: int, as_json: bool) -> None:
    """List the waiting tasks, most urgent first, with what they wait for (recomputed now)."""
    report = pending_report(deployment(ctx), limit)
    if as_json:
        print_json(report)
        return
    waiting, delayed = report["waiting"], report["delayed"]
    if not waiting and not delayed:
        line("Nothing waits.")
        return
    print_table(
        ["*task", "*type", ">*due in", ">*waits", "needs, and why it waits"],
        [
            [
                task["task_id"],
                task["type"],
                duration(task["deadline_in_s"]),
                duration(task["waits_s"]),
                # What no node can ever hold is named in the reason.
                task["why"] if task["kind"] == "never" else f"{task['asks_for']}: {task['why']}",
            ]
            for task in report["tasks"]
        ],
    )
    line(f"{waiting} wait for capacity, {delayed} for their time; {len(report['tasks'])} are shown.")
