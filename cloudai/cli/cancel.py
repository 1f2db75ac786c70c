"""`cloudai cancel`: end tasks in whatever state they are."""

from __future__ import annotations

import click

from cloudai.cli.application import application
from cloudai.cli.output import json_option, print_json
from cloudai.control import cancel as cancel_in_ledger
from cloudai.names import CANCELLED, RUNNING


@click.command()
@click.argument("task_ids", metavar="TASK_ID...", nargs=-1, required=True)
@click.option(
    "--terminate/--no-terminate", default=True, help="Whether running tasks are stopped.  [default: stopped]"
)
@json_option
@click.pass_context
def cancel(ctx: click.Context, task_ids: tuple[str, ...], terminate: bool, as_json: bool) -> None:
    """Cancel tasks: waiting and placed ones end at once, running ones are stopped on their nodes.

    With --no-terminate a running attempt goes on, but the task is not started again after a loss or for a
    retry.
    """
    app = application(ctx)
    reports = []
    for task_id in dict.fromkeys(task_ids):
        state = cancel_in_ledger(app, task_id)
        if state == RUNNING and terminate:
            app.control.revoke(task_id, terminate=True)
        node = app.deployment.ledger.entry(task_id).get("node", "")
        reports.append(
            {"task_id": task_id, "state": state, "node": node, "told_to_stop": state == RUNNING and terminate}
        )
    if as_json:
        print_json({"tasks": reports})
    else:
        for report in reports:
            click.echo(
                f"{report['task_id']}  {_sentence(str(report['state']), str(report['node']), terminate)}"
            )
    if any(report["state"] == "unknown" for report in reports):
        ctx.exit(1)


def _sentence(state: str, node: str, terminate: bool) -> str:
    if state == CANCELLED:
        return "cancelled"
    if state == RUNNING:
        return f"told to stop on {node}" if terminate else f"goes on on {node}, and is not started again"
    if state == "unknown":
        return "not known: it never asked for resources, or ended long ago"
    return f"had ended already: {state}"
