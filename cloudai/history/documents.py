"""From events of the stream to documents of the history: pure, and the same for whoever does it how often.

A task has one document in TASKS, one in ASSIGNMENTS for each attempt, and one in RESULTS for each attempt that has
ended; all that RESULTS needs is in one event. Every document carries `seq`, the place of its last event in the stream,
so that a batch that is written again, or late, changes nothing.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cloudai import names
from cloudai.history.collections import ASSIGNMENTS, PARAMETERS, RESULTS, TASKS, TAU_HISTORY, WORKER_REGISTRY
from cloudai.scheduling.units import KIB_PER_GIB, MILLI
from cloudai.state.fleet import NODE_STATES

#: Learned values of tau are kept as they stood at the end of every so many seconds in which one changed.
TAU_BUCKET_S = 10

_BYTES_PER_GIB = 1 << 30


@dataclass(slots=True)
class Changes:
    """What a batch of events does to the history."""

    #: Collection -> document id -> fields to set.
    documents: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    #: Attempts that have ended.
    results: int = 0
    #: Events that could not be read: how many, by reason.
    skipped: Counter[str] = field(default_factory=Counter)

    def set(self, collection: str, document_id: str, values: Mapping[str, Any]) -> None:
        """Later values win."""
        self.documents[collection].setdefault(document_id, {}).update(values)


def sequence(entry_id: str) -> str:
    """A stream entry's id as text that sorts as the stream does."""
    milliseconds, _, number = entry_id.partition("-")
    return f"{int(milliseconds):015d}-{int(number or 0):012d}"


def day(epoch_s: float) -> datetime:
    """A time as MongoDB's own kind, which its retention needs."""
    return datetime.fromtimestamp(epoch_s, UTC)


def changes_of(events: Iterable[tuple[str, Mapping[str, str]]]) -> Changes:
    """What these entries (id, fields) of the stream, in its order, do to the history. Unknown kinds are left out."""
    changes = Changes()
    for entry_id, fields in events:
        write = _WRITERS.get(fields.get("event", ""))
        if write is None:
            continue
        try:
            at = _finite(fields["at"])
            stamp = {"seq": sequence(entry_id), "at": day(at)}
            write(changes, fields, at, stamp)
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            changes.skipped[f"{fields.get('event')}: {type(error).__name__} {error}"[:120]] += 1
    return changes


def assignment_id(fields: Mapping[str, str]) -> str:
    """One document for each attempt of a task."""
    return f"{fields['id']}/{int(fields['attempt'])}"


def _submitted(changes: Changes, fields: Mapping[str, str], at: float, stamp: Mapping[str, Any]) -> None:
    request = json.loads(fields["request"])
    changes.set(
        TASKS,
        fields["id"],
        {
            "task_id": fields["id"],
            "name": fields.get("name", ""),
            "task_type": fields["type"],
            "family": fields.get("family", ""),
            "user_id": fields.get("user", ""),
            "cpu": request.get("cpu_milli", 0) / MILLI,
            "memory": request.get("memory_kib", 0) / KIB_PER_GIB,
            "gpu": request.get("gpu_milli", 0) / MILLI,
            "storage": request.get("storage_kib", 0) / KIB_PER_GIB,
            "submitted_at": at,
            "arrival_time": _finite(fields["arrival"]),
            "deadline": _finite(fields["deadline"]),
            **_foretold(fields),
            # An id that is used again has its new life here; the results of the old one stay in RESULTS.
            "state": "submitted",
            "attempt": 0,
            "worker_id": "",
            "finished_at": None,
            "sla_success": None,
            "reason": "",
            **stamp,
        },
    )


def _waiting(changes: Changes, fields: Mapping[str, str], at: float, stamp: Mapping[str, Any]) -> None:
    changes.set(TASKS, fields["id"], {"state": names.WAITING, "reason": fields.get("reason", ""), **stamp})
    if fields.get("attempt") and fields.get("node"):
        given_up = {"given_up_at": at, "given_up_because": fields.get("reason", ""), **stamp}
        changes.set(ASSIGNMENTS, assignment_id(fields), given_up)


def _placed(changes: Changes, fields: Mapping[str, str], at: float, stamp: Mapping[str, Any]) -> None:
    attempt, node = int(fields["attempt"]), fields["node"]
    features = _features(fields.get("features"))
    # One that is placed again where it was (a node that restarts) keeps what was foretold; its end tells.
    foretold = _foretold(fields) if "parameters" in fields else {}
    changes.set(
        TASKS,
        fields["id"],
        {"state": names.PLACED, "attempt": attempt, "worker_id": node, "reason": "", **stamp},
    )
    changes.set(
        ASSIGNMENTS,
        assignment_id(fields),
        {
            "task_id": fields["id"],
            "attempt": attempt,
            "worker_id": node,
            "placed_at": at,
            "features": features,
            "load_at_start": features[3] if features else None,
            **foretold,
            # A restarted node may have an attempt of the same number placed again.
            "claimed_at": None,
            "finished_at": None,
            **stamp,
        },
    )


def _claimed(changes: Changes, fields: Mapping[str, str], at: float, stamp: Mapping[str, Any]) -> None:
    changes.set(TASKS, fields["id"], {"state": names.RUNNING, **stamp})
    changes.set(ASSIGNMENTS, assignment_id(fields), {"claimed_at": at, **stamp})


def _finished(changes: Changes, fields: Mapping[str, str], at: float, stamp: Mapping[str, Any]) -> None:
    result = _result(fields, at)
    changes.results += 1
    if result["final"]:
        ended = {
            "state": result["outcome"],
            "finished_at": at,
            "sla_success": result["sla_success"],
            "reason": fields.get("reason", ""),
        }
        changes.set(TASKS, fields["id"], {**ended, **stamp})
    if result["actual_start"] is not None:
        ended = {"outcome": result["outcome"], "finished_at": at, **_foretold(fields), **stamp}
        changes.set(ASSIGNMENTS, assignment_id(fields), ended)
    # The arrival tells the lives of an id that is used again apart; the attempts of the later one may begin at 1.
    kind = "" if result["actual_start"] is not None else "/end"
    document_id = f"{assignment_id(fields)}/{round(result['arrival_time'] * 1000)}{kind}"
    changes.set(RESULTS, document_id, {**result, "reason": fields.get("reason", ""), **stamp})
    if fields.get("tau_new"):
        _tau(changes, fields, at, stamp)


def _result(fields: Mapping[str, str], at: float) -> dict[str, Any]:
    """The fields of a TaskHistory."""
    started = _number(fields.get("started"))
    runtime = _number(fields.get("runtime"))
    features = _features(fields.get("features"))
    cpu = float(fields.get("cpu") or 0) / MILLI
    memory = float(fields.get("memory") or 0) / KIB_PER_GIB
    gpu = float(fields.get("gpu") or 0) / MILLI
    ran_s = runtime if runtime is not None else None if started is None else max(0.0, at - started)
    cpu_seconds, peak = _number(fields.get("cpu_seconds")), _number(fields.get("peak_memory"))
    used: dict[str, float | None] = {"cpu_used": None, "mem_used": None, "gpu_used": None}
    if ran_s is not None and started is not None:
        used["cpu_used"] = cpu_seconds if cpu_seconds is not None else cpu * ran_s
        used["mem_used"] = (peak / _BYTES_PER_GIB if peak is not None else memory) * ran_s
        used["gpu_used"] = gpu * ran_s
    return {
        "task_id": fields["id"],
        "attempt": int(fields["attempt"]),
        "worker_id": fields.get("node", ""),
        "task_type": fields["type"],
        "outcome": fields["outcome"],
        "final": fields.get("final") == "1",
        "arrival_time": _finite(fields["arrival"]),
        "deadline": _finite(fields["deadline"]),
        "actual_start": started,
        "actual_finish": at,
        "actual_runtime": runtime,
        "sla_success": fields.get("sla_success") == "1",
        **used,
        "cpu": cpu,
        "memory": memory,
        "gpu": gpu,
        "storage": float(fields.get("storage") or 0) / KIB_PER_GIB,
        "load_at_start": features[3] if features else None,
        "overload_time": _number(fields.get("overload_s")),
        "features": features,
        **_foretold(fields),
        "family": fields.get("family", ""),
    }


def _foretold(fields: Mapping[str, str]) -> dict[str, Any]:
    """What the decision went by: tau at submission, E (both in seconds), the parameters' version (0: the defaults)."""
    return {
        "tau": _number(fields.get("tau")),
        "predicted_runtime": _number(fields.get("predicted")),
        "parameters_version": int(fields.get("parameters") or 0),
    }


def _tau(changes: Changes, fields: Mapping[str, str], at: float, stamp: Mapping[str, Any]) -> None:
    kind = fields["type"]
    sample = {
        "task_type": kind,
        "time": at,
        "tau": _finite(fields["tau_new"]),
        "runtime": _number(fields.get("runtime")),
        "variance": _number(fields.get("tau_variance")),
        "samples": int(fields.get("tau_samples") or 0),
        **stamp,
    }
    # What was set by hand stands beside what was learned in the same seconds.
    learned = sample["runtime"] is not None
    place = str(int(at // TAU_BUCKET_S)) if learned else f"hand/{round(at * 1000)}"
    changes.set(TAU_HISTORY, f"{kind}/{place}", sample)


def _registered(changes: Changes, fields: Mapping[str, str], at: float, stamp: Mapping[str, Any]) -> None:
    changes.set(
        WORKER_REGISTRY,
        fields["node"],
        {
            "worker_id": fields["node"],
            "incarnation": fields["incarnation"],
            "registered_at": at,
            "state": "up",
            "since": at,
            "cpu": int(fields["cpu"]) / MILLI,
            "memory": int(fields["memory"]) / KIB_PER_GIB,
            "gpu": int(fields["gpu"]),
            "storage": int(fields["storage"]) / KIB_PER_GIB,
            "slots": int(fields["slots"]),
            "labels": _labels(fields),
            **stamp,
        },
    )


def _labels(fields: Mapping[str, str]) -> list[dict[str, str]]:
    # As a list: a label's name may hold what a field's name may not.
    return [{"name": name, "value": value} for name, value in json.loads(fields["labels"]).items()]


def _announced(changes: Changes, fields: Mapping[str, str], at: float, stamp: Mapping[str, Any]) -> None:
    changes.set(
        WORKER_REGISTRY, fields["node"], {"worker_id": fields["node"], "labels": _labels(fields), **stamp}
    )


def _node_state(changes: Changes, fields: Mapping[str, str], at: float, stamp: Mapping[str, Any]) -> None:
    # A node that returned is what it was before, up or draining; the other events are named after the new state.
    state = fields.get("state") or fields["event"]
    changes.set(
        WORKER_REGISTRY, fields["node"], {"worker_id": fields["node"], "state": state, "since": at, **stamp}
    )


def _parameters(changes: Changes, fields: Mapping[str, str], at: float, stamp: Mapping[str, Any]) -> None:
    changes.set(
        PARAMETERS,
        parameters_id(int(fields["version"]), at),
        {
            "version": int(fields["version"]),
            "json": fields["json"],
            "source": fields.get("source", ""),
            "published_at": at,
            **stamp,
        },
    )


def parameters_id(version: int, at: float) -> str:
    """One document for each publication; a Redis that lost its data counts versions from 1 again."""
    return f"{version}/{round(at * 1000)}"


_WRITERS = {
    "submitted": _submitted,
    "waiting": _waiting,
    "placed": _placed,
    "claimed": _claimed,
    "finished": _finished,
    "tau": _tau,
    "registered": _registered,
    "announced": _announced,
    "returned": _node_state,
    **dict.fromkeys(NODE_STATES, _node_state),
    "parameters": _parameters,
}


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _number(text: str | None) -> float | None:
    """A finite number, or None for anything else that a script or a job may have left there."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _features(text: str | None) -> list[float | None] | None:
    if not text:
        return None
    try:
        values = json.loads(text)
    except ValueError:
        return None
    if not isinstance(values, list) or len(values) != 4:
        return None
    return [float(v) if isinstance(v, (int, float)) and math.isfinite(v) else None for v in values]
