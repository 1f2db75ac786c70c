"""`cloudai drain`: take a node out of service without stopping what runs on it."""

from __future__ import annotations

import time

import click

from cloudai.cli.application import deployment
from cloudai.cli.fleet_report import node_reports, resolve_node
from cloudai.cli.output import json_option, print_json
from cloudai.state.fleet import DRAINING, UP

#: Between two looks at a node that drains, seconds.
_LOOK_EVERY_S = 1.0


@click.command()
@click.argument("node")
@click.option("--undo", is_flag=True, help="Take the node back into service.")
@click.option("--wait", is_flag=True, help="Return when nothing runs on the node any more.")
@json_option
@click.pass_context
def drain(ctx: click.Context, node: str, undo: bool, wait: bool, as_json: bool) -> None:
    """Let NODE finish what runs and take nothing new. What it has not begun is placed elsewhere."""
    if undo and wait:
        raise click.UsageError("--wait waits for a drain to end; it has no meaning with --undo")
    state = deployment(ctx)
    name = resolve_node(state.fleet, node)
    now_state = state.fleet.undrain(name) if undo else state.fleet.drain(name)
    [report] = node_reports(state, [name])
    while wait and report["tasks"] and report["state"] == DRAINING:
        time.sleep(_LOOK_EVERY_S)
        [report] = node_reports(state, [name])
    running = len(report["tasks"])
    reached = now_state == (UP if undo else DRAINING)
    if as_json:
        print_json({"node": name, "state": report["state"], "tasks": report["tasks"]})
    elif not reached:
        click.echo(f"{name} is {now_state}: there is nothing to {'take back' if undo else 'drain'}.")
    elif undo:
        click.echo(f"{name} is up: it takes tasks again.")
    else:
        rest = f"{running} tasks still run on it" if running else "nothing runs on it"
        click.echo(f"{name} is {report['state']}: it takes nothing new; {rest}.")
    if not reached or (wait and running):
        ctx.exit(1)
