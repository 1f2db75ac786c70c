"""What happened to each job, read from the event stream that every state change appends to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cloudai.deployment import Deployment
from cloudai.names import FAILED, SUCCEEDED

#: Events read at once.
_BATCH = 1000


@dataclass(slots=True)
class JobTrace:
    """One job as the events tell it."""

    task_type: str = ""
    #: Epoch seconds.
    arrival: float = 0.0
    #: waiting, placed, running, or a final state.
    state: str = "submitted"
    #: Where it was placed last.
    node: str = ""
    #: Whether it found no node that was free when it came.
    waited: bool = False
    claims: int = 0
    #: Arrival to the last claim, s.
    waiting_s: float = 0.0
    #: The work itself, s.
    runtime_s: float = 0.0
    successes: int = 0
    ended: bool = False
    sla_success: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Where the jobs are at one moment."""

    ended: int
    #: Have no node yet.
    waiting: int
    #: On a node, by its name.
    on_node: dict[str, int] = field(default_factory=dict)


class Observer:
    """Follows the stream of one deployment from its beginning."""

    def __init__(self, deployment: Deployment) -> None:
        self._client = deployment.client
        self._stream = deployment.keys.events
        self._position = "0-0"
        self.traces: dict[str, JobTrace] = {}

    def look(self) -> None:
        """Take in what has happened since the last look."""
        while True:
            found: Any = self._client.xread({self._stream: self._position}, count=_BATCH)
            if not found:
                return
            for entry_id, fields in found[0][1]:
                self._position = entry_id.decode()
                self._take({key.decode(): value.decode() for key, value in fields.items()})

    def counts(self) -> Counts:
        """Where the jobs are, as of the last look."""
        traces = self.traces.values()
        return Counts(
            ended=sum(trace.ended for trace in traces),
            waiting=sum(trace.state in ("submitted", "waiting") for trace in traces),
            on_node=dict(Counter(trace.node for trace in traces if trace.state in ("placed", "running"))),
        )

    def _take(self, event: dict[str, str]) -> None:
        if event["event"] == "submitted":
            self.traces[event["id"]] = JobTrace(event["type"], float(event["arrival"]))
            return
        trace = self.traces.get(event["id"])
        if trace is None:  # an event that is about no task of ours
            return
        match event["event"]:
            case "waiting":
                trace.state, trace.waited = "waiting", True
            case "placed":
                trace.state, trace.node = "placed", event["node"]
            case "claimed":
                trace.state = "running"
                trace.claims += 1
                trace.waiting_s = max(0.0, float(event["at"]) - trace.arrival)
            case "finished":
                trace.state = event["outcome"]
                trace.ended = True
                if event["outcome"] in (SUCCEEDED, FAILED):
                    trace.runtime_s = max(0.0, float(event.get("runtime", 0)))
                trace.successes += event["outcome"] == SUCCEEDED
                trace.sla_success = event.get("sla_success") == "1"
