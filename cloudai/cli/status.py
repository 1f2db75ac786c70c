"""`cloudai status`: fleet and queue at a glance."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from cloudai.cli.application import deployment
from cloudai.cli.fleet_report import status_report
from cloudai.cli.output import json_option, number, percent, print_fields, print_json

_UNITS = {"cpu": "cores", "memory_gib": "GiB", "gpu": "GPUs", "slots": "slots"}


@click.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Fleet and queue at a glance: nodes, load, tasks, outcomes, fallbacks, and the server's persistence."""
    report = status_report(deployment(ctx))
    if as_json:
        print_json(report)
        return
    nodes, tasks, decisions = report["nodes"], report["tasks"], report["decisions"]
    print_fields(
        {
            "nodes": _counted(nodes["by_state"])
            or "none is registered; `cloudai up` starts some on this machine",
            "free": _free(nodes) if nodes["by_state"] else "",
            "load": f"mean {number(nodes['load_mean'])}, highest {number(nodes['load_max'])} (1 is saturated)"
            if nodes["load_max"] is not None
            else "",
            "in flight": f"{tasks['in_flight']}: {tasks['on_nodes']} on nodes, {tasks['waiting']} waiting "
            f"for capacity, {tasks['delayed']} for their time",
            "ended": _counted(report["outcomes"]) or "none yet",
            "decisions": _decisions(decisions),
            "attempts lost": str(report["counters"]["attempts_lost"] or ""),
            "dead letters": _dead_letters(report["dead_letters"]),
            "parameters": f"version {report['parameters_version']}"
            if report["parameters_version"]
            else "the defaults; none were published yet",
            "Redis": _server(report["redis"]),
            "persistence": _persistence(report["redis"]),
        }
    )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _free(nodes: dict[str, Any]) -> str:
    return ", ".join(
        f"{number(nodes[name]['free'])} of {number(nodes[name]['capacity'])} {unit}"
        for name, unit in _UNITS.items()
        if nodes[name]["capacity"]
    )


def _decisions(decisions: dict[str, Any]) -> str | Text:
    if not decisions["placements"]:
        return "none yet"
    text = f"{decisions['placements']} placements, {percent(decisions['fallback_rate'])} by fallback"
    if not decisions["fallbacks"]:
        return text
    return Text(f"{text} ({_counted(decisions['fallbacks'])})", style="yellow")


def _dead_letters(count: int) -> str | Text:
    return Text(f"{count}: frames that no node could read", style="red") if count else "0"


def _server(server: dict[str, Any]) -> str:
    used = f"{server['used_memory_mib']:g} MiB used"
    limit = f" of {server['maxmemory_mib']:g}" if server["maxmemory_mib"] else ""
    return f"{server['server']} {server['version']} at {server['url']}, {used}{limit}"


def _persistence(server: dict[str, Any]) -> str | Text:
    problems = []
    if not server["appendonly"]:
        problems.append("appendonly is off: a restart of the server loses tasks")
    elif not server["last_append_ok"]:
        problems.append("the last write of the append-only file failed")
    policy = server["maxmemory_policy"]
    if policy not in (None, "noeviction"):
        problems.append(f"maxmemory-policy is {policy}: the server may drop tasks (noeviction does not)")
    if problems:
        return Text("; ".join(problems), style="yellow")
    if policy is None:
        return f"appendonly on, maxmemory-policy not known (CONFIG is refused: {server['config_refused']})"
    return f"appendonly on (fsync {server['appendfsync'] or 'not known'}), maxmemory-policy {policy}"
