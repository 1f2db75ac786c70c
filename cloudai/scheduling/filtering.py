"""The filter as the pipeline uses it: the verdicts on a shape of request are kept, and only changed rows
looked at anew.

Tasks come in few shapes and a submission changes few nodes, so most decisions test no more than those.
"""

from __future__ import annotations

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
    refusals: dict[str, int]


class _Kept:
    """The lasting part of the verdict on one shape."""

    __slots__ = ("changes", "codes", "counts", "mask", "membership")

    codes: CodeArray
    mask: BoolArray
    #: nodes by code
    counts: list[int]

    def __init__(self, task: TaskRequest, snapshot: FleetSnapshot) -> None:
        self.rebuild(task, snapshot)

    def rebuild(self, task: TaskRequest, snapshot: FleetSnapshot) -> None:
        self.codes = lasting_codes(task, snapshot)
        self.mask = self.codes == NO_REASON
        self.counts = np.bincount(self.codes, minlength=1 + len(REASONS)).tolist()
        self.membership = snapshot.membership
        self.changes = snapshot.changes

    def refresh(self, task: TaskRequest, snapshot: FleetSnapshot) -> None:
        if self.membership == snapshot.membership and self.changes == snapshot.changes:
            return
        rows = snapshot.changed_since(self.changes)
        if self.membership != snapshot.membership or rows is None or len(rows) > _FEW_ROWS:
            self.rebuild(task, snapshot)
            return
        for row in rows:
            before = int(self.codes[row])
            code = lasting_code(task, snapshot.states[row])
            if code != before:
                self.codes[row] = code
                self.mask[row] = code == NO_REASON
                self.counts[before] -= 1
                self.counts[code] += 1
        self.changes = snapshot.changes


class Filter:
    """Verdicts on tasks over one fleet snapshot after another. Not safe for threads, as the snapshot."""

    def __init__(self) -> None:
        self._snapshot: FleetSnapshot | None = None
        #: by shape, the longest unused first
        self._kept: dict[str, _Kept] = {}

    def verdict(
        self, task_id: str, task: TaskRequest, snapshot: FleetSnapshot, now: float, staleness_s: float
    ) -> Verdict:
        """As `feasible_mask`, with the refusals counted."""
        kept = self._lasting(task, snapshot)
        refusals: dict[str, int] = {}
        if kept.counts[NO_REASON] != len(snapshot):
            refusals = {
                str(reason): number for reason, number in zip(REASONS, kept.counts[1:], strict=True) if number
            }
        feasible = kept.mask & fresh(snapshot, now, staleness_s)
        stale = kept.counts[NO_REASON] - int(np.count_nonzero(feasible))
        count = kept.counts[NO_REASON] - stale
        held = 0
        for name, holder in snapshot.held.items():
            row = snapshot.index[name]
            if holder != task_id and kept.mask[row]:
                held += 1
                if feasible[row]:
                    feasible[row] = False
                    count -= 1
                else:
                    stale -= 1
        if held:
            refusals[str(Reason.HELD)] = held
        if stale:
            refusals[str(Reason.STALE)] = stale
        return Verdict(feasible, count, refusals)

    def _lasting(self, task: TaskRequest, snapshot: FleetSnapshot) -> _Kept:
        if snapshot is not self._snapshot:
            self._kept.clear()
            self._snapshot = snapshot
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
