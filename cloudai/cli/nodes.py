"""`cloudai nodes`: the fleet, node by node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.text import Text

from cloudai.cli.application import deployment
from cloudai.cli.fleet_report import node_reports, resolve_node
from cloudai.cli.output import (
    duration,
    from_now,
    heading,
    json_option,
    line,
    number,
    print_json,
    print_table,
    state_text,
)
from cloudai.deployment import Deployment


@click.command()
@click.argument("names", metavar="[NODE]...", nargs=-1)
@json_option
@click.pass_context
def nodes(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """List the nodes: state, free of capacity, load, tasks, labels. With names: these and their tasks."""
    state = deployment(ctx)
    wanted = [resolve_node(state.fleet, name) for name in names]
    reports = node_reports(state, wanted)
    if as_json:
        print_json({"nodes": reports})
        return
    if not reports:
        line(
            "No node is registered. `cloudai up` starts some here; `celery -A cloudai worker` makes this "
            "machine one."
        )
        return
    print_table(
        [
            "*node",
            "*state",
            ">*cpu",
            ">*GiB",
            ">*gpu",
            ">*slots",
            ">*load",
            ">*tasks",
            ">*heard",
            "labels",
        ],
        [_row(report) for report in reports],
    )
    if wanted:
        state.view.refresh()
        for report in reports:
            _print_tasks(state, report)


def _row(report: Mapping[str, Any]) -> list[str | Text]:
    load = report["load"]
    return [
        report["name"],
        state_text(report["state"]) + (", jobs paused" if report["jobs_paused"] else ""),
        _of(report["cpu"]),
        _of(report["memory_gib"]),
        _of(report["gpu"]) if report["gpu"]["capacity"] else "-",
        _of(report["slots"]),
        Text(number(load, 2), style="red" if load is not None and load > 1 else ""),
        str(len(report["tasks"])),
        duration(report["heartbeat_age_s"]),
        ", ".join(f"{label}={value}" for label, value in sorted(report["labels"].items())),
    ]


def _of(amount: Mapping[str, float]) -> str:
    return f"{number(amount['free'])}/{number(amount['capacity'])}"


def _print_tasks(state: Deployment, report: Mapping[str, Any]) -> None:
    heading(f"{report['name']}: {report['runner']} runner, {report['pool']}, version {report['version']}")
    if report["held_for"]:
        line(f"Kept for task {report['held_for']}, which has waited long: nothing else is placed here.")
    if not report["tasks"]:
        line("No task is on it.")
        return
    now = state.view.now()
    with state.client.pipeline(transaction=False) as pipe:
        for task_id in report["tasks"]:
            pipe.hmget(state.keys.task(task_id), "state", "type", "attempt", "claimed", "deadline", "name")
        found = pipe.execute()
    rows: list[list[str | Text]] = []
    for task_id, fields in zip(report["tasks"], found, strict=True):
        task_state, kind, attempt, claimed, deadline, name = ((value or b"").decode() for value in fields)
        since = duration(now - float(claimed)) if claimed and task_state == "running" else ""
        due = from_now(float(deadline), now) if deadline else ""
        again = f", attempt {attempt}" if attempt not in ("", "0", "1") else ""
        rows.append([task_id, state_text(task_state), since, due, f"{kind}, {name}{again}"])
    print_table(["*task", "*state", ">*runs", ">*deadline", "type and name"], rows)
