"""Watches a run from outside: records the event stream, and looks for tasks that wait beside idle nodes.

The stream is read as the recorder reads it, and trimmed behind. Reservations are watched by the fault campaign's audit.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cloudai.deployment import Deployment
from cloudai.scheduling.feasibility import NO_REASON, fresh, lasting_codes
from cloudai.scheduling.requests import TaskRequest

from .plan import Plan, settings_of

_BATCH = 2000
#: Between two looks for tasks that wait beside idle nodes, seconds; with so many waiting tasks at most.
_LOOK_EVERY_S = 1.0
_LOOK_BELOW = 2000


class Event(NamedTuple):
    """What counts of an entry of the stream."""

    kind: str
    task_id: str
    #: Epoch seconds of the server.
    at: float
    node: str
    attempt: str
    outcome: str
    final: bool
    reason: str


class Recorder:
    """Reads the stream in a thread of its own, from `start` to `stop`."""

    def __init__(self, deployment: Deployment, keep: int) -> None:
        self._stream = deployment.events
        self._keep = keep
        self.events: list[Event] = []
        #: Events that the stream dropped before they were read.
        self.dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scale-recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Read what is left, then end."""
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while True:
            last = self._stop.is_set()
            while self._read():
                pass
            if last:
                return
            self._stop.wait(0.5)

    def _read(self) -> bool:
        batch = self._stream.unrecorded(_BATCH)
        if not batch.events:
            return False
        self.dropped += batch.dropped
        self.events += (
            Event(
                e["event"], e["id"], float(e["at"]), e.get("node", ""), e.get("attempt", ""), e.get("outcome", ""),
                e.get("final") == "1", e.get("reason", ""),
            )
            for _, e in batch.events
        )  # fmt: skip
        self._stream.recorded(batch, keep=self._keep)
        return len(batch.events) == _BATCH


@dataclass(slots=True)
class Passed:
    """A task that waits although a node is idle that could take it."""

    since: float
    seconds: float
    node: str
    request: str


class IdleWatch:
    """Looks at the waiting set and the fleet once the queue is short."""

    def __init__(self, plan: Plan, url: str) -> None:
        self._deployment = Deployment(settings_of(plan, url))
        self._staleness_s = self._deployment.settings.scheduling.staleness_s
        #: By task; those that are placed meanwhile are kept with the longest time.
        self._now: dict[str, Passed] = {}
        self.longest: dict[str, Passed] = {}
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scale-idle", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(60)
        self._deployment.client.close()

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            if 0 < int(self._deployment.client.zcard(self._deployment.keys.waiting)) <= _LOOK_BELOW:
                self.look()
            else:
                self._now.clear()

    def look(self) -> None:
        """One look."""
        view = self._deployment.view
        view.refresh()
        found = self._deployment.ledger.waiting(view.version, shapes=200, each=64)
        view.saw_time(found.now)
        view.apply(found.changes)
        self.looks += 1
        snapshot, moment, passed = view.snapshot, time.monotonic(), {}
        idle = (snapshot.slots >= snapshot.slots_capacity) & fresh(snapshot, found.now, self._staleness_s)
        for shape in found.shapes:
            request = TaskRequest.from_header(json.loads(shape.request))
            able = idle & (lasting_codes(request, snapshot) == NO_REASON)
            rows = [int(row) for row in np.flatnonzero(able)]
            free = [snapshot.names[row] for row in rows if snapshot.names[row] not in snapshot.held]
            for task in shape.tasks if free else ():
                since = self._now[task.task_id].since if task.task_id in self._now else moment
                passed[task.task_id] = Passed(since, moment - since, free[0], shape.request)
        self._now = passed
        for task_id, one in passed.items():
            if task_id not in self.longest or one.seconds > self.longest[task_id].seconds:
                self.longest[task_id] = one
