"""The filter as the pipeline uses it: the verdicts on a shape of request are kept, and only changed rows
looked at anew.

Tasks come in few shapes and a submission changes few nodes, so most decisions test no more than those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cloudai.scheduling.feasibility import (
    NO_REASON,
    REASONS,
    CodeArray,
    Reason,
    fresh,
    lasting_code,
    lasting_codes,
)
from cloudai.scheduling.requests import TaskRequest
from cloudai.scheduling.snapshot import BoolArray, FleetSnapshot

#: Shapes of request whose verdicts are kept.
_KEPT_SHAPES = 128
#: Above this many changed rows one pass over all nodes is cheaper.
_FEW_ROWS = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which nodes can take a task now, and how many cannot, by reason."""

    #: shape (n,)
    feasible: BoolArray
    #: number of feasible nodes
    count: int
    #: number of nodes refused, by the first reason; reasons without any are left out
    refusals: Mapping[str, int]


class _Kept:
    """The lasting part of the verdict on one shape."""

    __slots__ = ("changes", "codes", "counts", "mask", "membership", "refusals")

    codes: CodeArray
    mask: BoolArray
    #: nodes by code
    counts: list[int]
    #: the counts of the refused by reason, without zeros
    refusals: dict[str, int]

    def __init__(self, task: TaskRequest, snapshot: FleetSnapshot) -> None:
        self.rebuild(task, snapshot)

    def rebuild(self, task: TaskRequest, snapshot: FleetSnapshot) -> None:
        self.codes = lasting_codes(task, snapshot)
        self.mask = self.codes == NO_REASON
        self.counts = np.bincount(self.codes, minlength=1 + len(REASONS)).tolist()
        self.membership = snapshot.membership
        self.changes = snapshot.changes
        self._name_refusals()

    def refresh(self, task: TaskRequest, snapshot: FleetSnapshot) -> None:
        if self.membership == snapshot.membership and self.changes == snapshot.changes:
            return
        rows = snapshot.changed_since(self.changes)
        if self.membership != snapshot.membership or rows is None or len(rows) > _FEW_ROWS:
            self.rebuild(task, snapshot)
            return
        moved = False
        for row in rows:
            before = int(self.codes[row])
            code = lasting_code(task, snapshot.states[row])
            if code != before:
                self.codes[row] = code
                self.mask[row] = code == NO_REASON
                self.counts[before] -= 1
                self.counts[code] += 1
                moved = True
        self.changes = snapshot.changes
        if moved:
            self._name_refusals()

    def _name_refusals(self) -> None:
        self.refusals = {str(reason): n for reason, n in zip(REASONS, self.counts[1:], strict=True) if n}


class Filter:
    """Verdicts on tasks over one fleet snapshot after another. Not safe for threads, as the snapshot."""

    def __init__(self) -> None:
        self._snapshot: FleetSnapshot | None = None
        #: heartbeat that no node's is older than, epoch s, while the snapshot's membership is this
        self._oldest = 0.0
        self._membership = -1
        #: by shape, the longest unused first
        self._kept: dict[str, _Kept] = {}

    def verdict(
        self, task_id: str, task: TaskRequest, snapshot: FleetSnapshot, now: float, staleness_s: float
    ) -> Verdict:
        """Which nodes can take the task now, and why the others cannot (spec section 5). `now` in epoch s.

        `task_id` matters for a node that is held: only the task that it is held for may have it.
        """
        kept = self._lasting(task, snapshot)
        if not snapshot.held and self._all_fresh(snapshot, now, staleness_s):
            return Verdict(kept.mask, kept.counts[NO_REASON], kept.refusals)
        feasible = kept.mask & fresh(snapshot, now, staleness_s)
        count = int(np.count_nonzero(feasible))
        fitting = kept.counts[NO_REASON]
        if count == fitting and not snapshot.held:
            return Verdict(feasible, count, kept.refusals)
        held = 0
        for name, holder in snapshot.held.items():
            row = snapshot.index[name]
            if holder != task_id and kept.mask[row]:
                held += 1
                feasible[row] = False
        count = int(np.count_nonzero(feasible))
        refusals = dict(kept.refusals)
        if held:
            refusals[str(Reason.HELD)] = held
        if fitting - held - count:
            refusals[str(Reason.STALE)] = fitting - held - count
        return Verdict(feasible, count, refusals)

    def _all_fresh(self, snapshot: FleetSnapshot, now: float, staleness_s: float) -> bool:
        """Whether no node's telemetry is too old. A node's heartbeat only ever grows, so the oldest one that was
        seen is
        a bound for as long as no node comes or goes.
        """
        if self._membership == snapshot.membership and now - self._oldest <= staleness_s:
            return True
        self._membership = snapshot.membership
        self._oldest = float(snapshot.heartbeat.min(initial=now))
        return now - self._oldest <= staleness_s

    def _lasting(self, task: TaskRequest, snapshot: FleetSnapshot) -> _Kept:
        if snapshot is not self._snapshot:
            self._kept.clear()
            self._snapshot = snapshot
            self._membership = -1
        shape = task.shape
        kept = self._kept.pop(shape, None)
        if kept is None:
            kept = _Kept(task, snapshot)
            if len(self._kept) >= _KEPT_SHAPES:
                del self._kept[next(iter(self._kept))]
        else:
            kept.refresh(task, snapshot)
        self._kept[shape] = kept
        return kept
