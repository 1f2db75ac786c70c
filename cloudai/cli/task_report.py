"""What `explain` and `pending` show, as plain data.

Only the ledger's fields, its events and the decision record are read: the message, with the arguments and the
environment of a job, is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudai.deployment import Deployment
from cloudai.names import FINAL_STATES, WAITING
from cloudai.scheduling.decision import Decision, Outcome, read_record
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.feasibility import Reason, explain_node
from cloudai.scheduling.requests import TaskRequest

#: Events that are looked through at most for the history of one task, and events read at once.
_EVENTS_LOOKED_AT = 20_000
_EVENTS_AT_ONCE = 1000
#: Nodes of a waiting task whose reasons are listed one by one.
NODES_SHOWN = 50

_FOR_ITS_ETA = {"kind": "eta", "why": "it is not to start before its ETA"}

#: Fields of an entry by how they are read.
_TIMES = ("submitted", "arrival", "deadline", "since", "placed", "claimed", "finished")
_NUMBERS = ("tau", "predicted", "runtime")
_COUNTS = ("attempt", "retries", "losses", "priority", "parameters")
_TEXTS = ("state", "node", "name", "type", "family", "user", "reason", "hold")

#: Fields of an event that its line in the history repeats.
_EVENT_DETAILS = (
    "node",
    "attempt",
    "reason",
    "outcome",
    "retries",
    "paused",
    "adopts",
    "exit_code",
    "runtime",
    "pull_s",
    "cpu_seconds",
    "peak_memory",
    "tau_old",
    "tau_new",
)


def task_report(deployment: Deployment, task_id: str) -> dict[str, Any]:
    """Everything that explains where a task is and why.

    Raises:
        InvalidRequest: the ledger does not know the task.
    """
    entry = deployment.ledger.entry(task_id)
    if not entry:
        kept = deployment.settings.limits.finished_ttl_s
        allowed = f"the id of a task that asked for resources and has not ended more than {kept} s ago"
        raise InvalidRequest("task_id", task_id, f"{allowed} (limits.finished_ttl_s)")
    deployment.view.refresh()
    now = deployment.view.now()
    report = {"task_id": task_id, "now": round(now, 3), **_entry_fields(entry)}
    report["decision"] = _decision(deployment, task_id)
    if report["predicted"] is None:
        report["predicted"] = _predicted(report["decision"], report["node"])
    report["history"], report["history_complete"] = _history(deployment, task_id, entry)
    report["waits_because"] = _why_it_waits(deployment, task_id, entry) if entry["state"] == WAITING else None
    return report


def _entry_fields(entry: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: entry.get(name, "") for name in _TEXTS}
    fields |= {name: float(entry[name]) if entry.get(name) else None for name in (*_TIMES, *_NUMBERS)}
    fields |= {name: int(float(entry[name])) if entry.get(name) else 0 for name in _COUNTS}
    request = _request(entry)
    fields["asks_for"] = request.resources.describe()
    fields["request"] = request.to_header()
    fields["gpu_devices"] = [int(device) for device in entry.get("devices", "").split(",") if device]
    ended = entry["state"] in FINAL_STATES
    fields["sla_success"] = entry.get("sla_success") == "1" if ended else None
    return fields


def _request(entry: Mapping[str, str]) -> TaskRequest:
    return TaskRequest.from_header(json.loads(entry["request"]))


def _decision(deployment: Deployment, task_id: str) -> dict[str, Any] | None:
    text = deployment.ledger.decision(task_id)
    return None if text is None else read_record(text)


def _predicted(decision: Mapping[str, Any] | None, node: str) -> float | None:
    """Predicted runtime on the node, of a task that was placed after it had waited, s."""
    candidates = decision["candidates"] if decision is not None else []
    return next((candidate["predicted_s"] for candidate in candidates if candidate["node"] == node), None)


def _history(
    deployment: Deployment, task_id: str, entry: Mapping[str, str]
) -> tuple[list[dict[str, Any]], bool]:
    """The task's events, oldest first, and whether these are all: the stream is trimmed, and read in part."""
    steps = []
    looked_at = 0
    begin = f"{int(float(entry['submitted']) * 1000) - 1}"
    end = f"{int(float(entry['finished']) * 1000) + 1}" if entry["state"] in FINAL_STATES else "+"
    for events in _batches(deployment, begin, end):
        looked_at += len(events)
        steps += [_step(fields) for _, fields in events if fields.get(b"id") == task_id.encode()]
        if looked_at >= _EVENTS_LOOKED_AT:
            return steps, False
    return steps, bool(steps) and steps[0]["event"] == "submitted"


def _batches(
    deployment: Deployment, begin: str, end: str
) -> Iterator[Sequence[tuple[bytes, dict[bytes, bytes]]]]:
    while True:
        events: Any = deployment.client.xrange(deployment.keys.events, begin, end, _EVENTS_AT_ONCE)
        if not events:
            return
        yield events
        begin = "(" + events[-1][0].decode()


def _step(fields: Mapping[bytes, bytes]) -> dict[str, Any]:
    step: dict[str, Any] = {"event": fields[b"event"].decode(), "at": float(fields[b"at"])}
    for name in _EVENT_DETAILS:
        value = fields.get(name.encode(), b"").decode()
        if value:
            step[name] = value
    return step


def _why_it_waits(deployment: Deployment, task_id: str, entry: Mapping[str, str]) -> dict[str, Any]:
    """Recomputed for now: the record of the decision tells what was true at the submission."""
    eta = deployment.client.zscore(deployment.keys.delayed, task_id)
    if eta is not None:
        return {"kind": "eta", "until": float(eta), "text": _FOR_ITS_ETA["why"], "nodes": []}
    request = _request(entry)
    view = deployment.view
    with view.lock:
        now = view.now()
        decision = deployment.placing.decide(task_id, request, deadline=float(entry["deadline"]))
        nodes = _nodes_now(deployment, task_id, request, now)
        gone = int(view.snapshot.gone.sum())
    rank: Any = deployment.client.zrank(deployment.keys.waiting, task_id)
    return {
        "kind": str(decision.outcome),
        "text": waiting_text(decision, hold=entry.get("hold", "")),
        "refusals": dict(decision.refusals),
        "needs": request.resources.describe(),
        "before_it": int(rank or 0),
        "hold": entry.get("hold", ""),
        "nodes": nodes,
        "nodes_in_all": len(view.snapshot) - gone,
        "nodes_gone": gone,
    }


def waiting_text(decision: Decision, *, hold: str = "") -> str:
    """One sentence on what a task waits for, by a decision that was made for now."""
    if hold:
        return f"node {hold} is kept for it until it has room"
    if decision.outcome is Outcome.NEVER:
        return decision.why_never
    if decision.outcome is Outcome.PLACE:
        return "a node has room for it now: it is its turn when those before it are placed"
    if not decision.refusals:
        return "no node is registered"
    return f"no node can take it now: {refusals_text(decision.refusals)}"


def refusals_text(refusals: Mapping[str, int]) -> str:
    """Nodes refused, by the first reason of each: "cpu (3 nodes), slots (1 node); 2 more nodes are down or lost".

    A node that is gone would have been refused by every task: it must not hide what this one waits for.
    """
    here = ", ".join(
        f"{reason} ({count} node{'s' * (count > 1)})" for reason, count in refusals.items() if reason != Reason.GONE
    )
    gone = refusals.get(Reason.GONE, 0)
    if not gone:
        return here
    return f"{here}; {gone_text(gone)}" if here else f"no node is in service, {gone_text(gone, more='')}"


def gone_text(count: int, more: str = "more ") -> str:
    """How many nodes besides have signed off or are lost; `cloudai nodes` lists them."""
    return f"{count} {more}{'nodes are' if count > 1 else 'node is'} down or lost"


def _nodes_now(
    deployment: Deployment, task_id: str, request: TaskRequest, now: float
) -> list[dict[str, Any]]:
    snapshot = deployment.view.snapshot
    staleness_s = deployment.settings.scheduling.staleness_s
    found = []
    # Those that are gone say nothing of the task, unless it asked for one.
    rows = [
        row for row, name in enumerate(snapshot.names) if not snapshot.gone[row] or name == request.target_worker_id
    ]
    for row in rows[:NODES_SHOWN]:
        name = snapshot.names[row]
        refusals = explain_node(request, snapshot, row, now=now, staleness_s=staleness_s, task_id=task_id)
        refused = [{"reason": str(r.reason), "needs": r.need, "has": r.have} for r in refusals]
        found.append({"node": name, "refused": refused})
    return found


def pending_report(deployment: Deployment, limit: int) -> dict[str, Any]:
    """The waiting tasks, most urgent first, then those with an ETA ahead, each with its reason as of now."""
    ids = [task_id for task_id, _ in deployment.ledger.waiting_ids(limit)]
    deployment.view.refresh()
    now = deployment.view.now()
    keys = deployment.keys
    with deployment.client.pipeline(transaction=False) as pipe:
        for task_id in ids:
            pipe.hgetall(keys.task(task_id))
            pipe.zscore(keys.delayed, task_id)
        found = pipe.execute()
    reasons = _Reasons(deployment)
    tasks = []
    for task_id, raw, eta in zip(ids, found[::2], found[1::2], strict=True):
        entry = {key.decode(): value.decode() for key, value in raw.items()}
        # Placed between the two reads.
        if entry.get("state") != WAITING:
            continue
        tasks.append(
            {
                "task_id": task_id,
                "type": entry.get("type", ""),
                "name": entry.get("name", ""),
                "asks_for": _request(entry).resources.describe(),
                "deadline": float(entry["deadline"]),
                "deadline_in_s": round(float(entry["deadline"]) - now, 3),
                "waits_s": round(now - float(entry.get("since") or entry["submitted"]), 3),
                "eta": eta,
                **(_FOR_ITS_ETA if eta is not None else reasons.of(task_id, entry)),
            }
        )
    totals = deployment.ledger.totals()
    return {"now": round(now, 3), "waiting": totals["waiting"], "delayed": totals["delayed"], "tasks": tasks}


class _Reasons:
    """Why tasks wait, decided once for each shape of request."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._by_shape: dict[str, dict[str, str]] = {}

    def of(self, task_id: str, entry: Mapping[str, str]) -> dict[str, str]:
        """`kind` and `why` of one waiting task."""
        if entry.get("hold"):
            return {"kind": "hold", "why": f"node {entry['hold']} is kept for it until it has room"}
        shape = entry["shape"]
        if shape not in self._by_shape:
            deadline = float(entry["deadline"])
            with self._deployment.view.lock:
                decision = self._deployment.placing.decide(task_id, _request(entry), deadline=deadline)
            self._by_shape[shape] = {"kind": str(decision.outcome), "why": waiting_text(decision)}
        return self._by_shape[shape]
