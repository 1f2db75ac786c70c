"""What `status` and `nodes` show, as plain data: also what a page or a script is given."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from cloudai.cli.application import masked
from cloudai.deployment import Deployment
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.units import KIB_PER_GIB, MILLI
from cloudai.state.fleet import DRAINING, GONE_STATES, UP, Fleet

#: Counters of the ledger: how tasks ended, and decisions.
_FINISHED = "finished_"
_FALLBACK = "fallback:"
_PLACEMENTS = "placements"
_OTHER_COUNTERS = (
    "attempts_lost", "attempts_adopted", "claims_refused", "finishes_refused", "reservation_leaks",
    "tau_samples_refused", "tau_outliers",
)  # fmt: skip

#: Endings that are steps on the way: the task goes on.
_ON_THE_WAY = frozenset({"retried", "requeued"})


def node_reports(deployment: Deployment, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every node, or the named ones, by name; amounts in cores, GiB, devices and seconds."""
    wanted = list(names) or deployment.fleet.names()
    keys = deployment.keys
    with deployment.client.pipeline(transaction=False) as pipe:
        pipe.time()
        for name in wanted:
            pipe.hgetall(keys.node(name))
            pipe.smembers(keys.node_tasks(name))
        (whole, micro), *found = pipe.execute()
    now = whole + micro / 1e6
    reports = []
    for name, entry, tasks in zip(wanted, found[::2], found[1::2], strict=True):
        if entry:
            fields = {key.decode(): value.decode() for key, value in entry.items()}
            ids = sorted(task_id.decode() for task_id in tasks)
            reports.append(_node_report(name, fields, ids, now))
    return reports


def _node_report(name: str, fields: Mapping[str, str], tasks: list[str], now: float) -> dict[str, Any]:
    state = _as_node_state(name, fields)
    return {
        "name": name,
        "state": fields["state"],
        "heartbeat_age_s": round(max(0.0, now - state.heartbeat), 3),
        "jobs_paused": bool(tasks) and _pauses(fields, now - state.heartbeat),
        "load": _finite(state.load),
        "cpu": _amount(state.cpu_available / MILLI, state.cpu_capacity / MILLI),
        "memory_gib": _amount(state.memory_available / KIB_PER_GIB, state.memory_capacity / KIB_PER_GIB),
        "gpu": {**_amount(state.gpu_available / MILLI, state.gpu_capacity), "devices": _shares(state)},
        "storage_gib": _amount(state.storage_available / KIB_PER_GIB, state.storage_capacity / KIB_PER_GIB),
        "slots": _amount(state.slots_available, state.slots_capacity),
        "labels": dict(state.labels),
        "tasks": tasks,
        "held_for": state.held_for,
        "usage": json.loads(fields.get("usage") or "{}"),
        "registered": float(fields["registered"]),
        **{key: fields.get(key, "") for key in ("host", "pid", "version", "runner", "pool", "incarnation")},
    }


def _pauses(fields: Mapping[str, str], silent_s: float) -> bool:
    """Whether a node that has been silent so long has paused its container jobs, if it lives: it cannot say so."""
    return fields.get("on_disconnect") == "pause" and silent_s > float(fields.get("pause_after") or "inf")


def _as_node_state(name: str, fields: Mapping[str, str]) -> NodeState:
    """The node as the scheduler sees it, so that its load is computed in one place."""
    whole = {
        f"{resource}_{end}": int(fields[f"{resource}{suffix}"])
        for resource in ("cpu", "memory", "storage", "slots")
        for end, suffix in (("capacity", "_capacity"), ("available", ""))
    }
    return NodeState(
        name=name,
        labels=json.loads(fields["labels"]),
        gpu_capacity=int(fields["gpu_capacity"]),
        gpu_free=tuple(int(share) for share in fields["gpu"].split(",") if share),
        pressure=float(fields["pressure"]),
        heartbeat=float(fields["heartbeat"]),
        accepting=fields["state"] == UP,
        gone=fields["state"] in GONE_STATES,
        held_for=fields.get("held_for", ""),
        **whole,
    )


def _amount(free: float, capacity: float) -> dict[str, float]:
    return {"free": round(free, 6), "capacity": round(capacity, 6)}


def _shares(state: NodeState) -> list[float]:
    return [share / MILLI for share in state.gpu_free]


def _finite(value: float) -> float | None:
    """JSON has no NaN: a load that could not be measured is null."""
    return round(value, 4) if value == value else None


def resolve_node(fleet: Fleet, given: str) -> str:
    """The node that is meant: its full name, or the part before or behind the @ where only one has it.

    Raises:
        InvalidRequest: there is no such node, or several.
    """
    names = fleet.names()
    if given in names:
        return given
    matching = [name for name in names if given in name.split("@", 1)]
    if len(matching) == 1:
        return matching[0]
    shown = ", ".join((matching or names)[:20]) or "none is registered"
    raise InvalidRequest("node", given, f"the name of one registered node: {shown}")


def status_report(deployment: Deployment) -> dict[str, Any]:
    """Fleet, queue, outcomes, decisions and the server, in one value."""
    nodes = node_reports(deployment)
    totals = deployment.ledger.totals()
    held = sum(len(node["tasks"]) for node in nodes)
    return {
        "namespace": deployment.keys.namespace,
        "nodes": _node_totals(nodes),
        "tasks": {
            "in_flight": totals["live"],
            "on_nodes": held,
            "waiting": totals["waiting"],
            "delayed": totals["delayed"],
        },
        "outcomes": _outcomes(totals),
        "decisions": _decisions(totals),
        "dead_letters": totals["dead_letters"],
        "counters": {name: totals.get(name, 0) for name in _OTHER_COUNTERS},
        "parameters_version": _parameters_version(deployment),
        "redis": redis_report(deployment),
    }


def _node_totals(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    in_service = [node for node in nodes if node["state"] in (UP, DRAINING)]
    loads = [node["load"] for node in in_service if node["load"] is not None]
    resources = {
        name: {
            "free": round(sum(node[name]["free"] for node in in_service if node["state"] == UP), 6),
            "capacity": round(sum(node[name]["capacity"] for node in in_service), 6),
        }
        for name in ("cpu", "memory_gib", "gpu", "slots")
    }
    return {
        "by_state": dict(sorted(Counter(node["state"] for node in nodes).items())),
        "load_mean": round(sum(loads) / len(loads), 4) if loads else None,
        "load_max": max(loads, default=None),
        **resources,
    }


def _outcomes(totals: Mapping[str, int]) -> dict[str, int]:
    found = {name.removeprefix(_FINISHED): n for name, n in totals.items() if name.startswith(_FINISHED)}
    return {name: n for name, n in sorted(found.items()) if name not in _ON_THE_WAY}


def _decisions(totals: Mapping[str, int]) -> dict[str, Any]:
    """Placements so far, and how many Round-Robin decided in the scheduler's place (spec section 5)."""
    placements = totals.get(_PLACEMENTS, 0)
    reasons = {name.removeprefix(_FALLBACK): n for name, n in totals.items() if name.startswith(_FALLBACK)}
    return {
        "placements": placements,
        "fallbacks": dict(sorted(reasons.items())),
        "fallback_rate": round(sum(reasons.values()) / placements, 6) if placements else None,
    }


def _parameters_version(deployment: Deployment) -> int:
    return int(deployment.client.hget(deployment.keys.parameters, "version") or 0)


def redis_report(deployment: Deployment) -> dict[str, Any]:
    """The server: what it is, and whether it keeps what it was told. null: CONFIG is refused."""
    client = deployment.client
    info = client.info()
    config: dict[Any, Any] = {}
    refused = ""
    for name in ("appendonly", "appendfsync", "maxmemory-policy"):
        try:
            config |= client.config_get(name)
        except redis.ResponseError as error:
            refused = str(error)
    kind = "valkey" if "valkey_version" in info else "redis"
    return {
        "url": masked(deployment.settings.redis.url),
        "server": kind,
        "version": str(info.get("valkey_version") or info.get("redis_version")),
        # INFO knows whether the log is on, also where CONFIG is refused.
        "appendonly": bool(info.get("aof_enabled")),
        "appendfsync": config.get("appendfsync"),
        "maxmemory_policy": config.get("maxmemory-policy") or info.get("maxmemory_policy"),
        "last_append_ok": info.get("aof_last_write_status", "ok") == "ok",
        "used_memory_mib": round(info["used_memory"] / 2**20, 1),
        "maxmemory_mib": round(info.get("maxmemory", 0) / 2**20, 1),
        "config_refused": refused,
    }
