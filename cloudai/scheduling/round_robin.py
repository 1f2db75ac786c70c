"""Round-Robin: the feasible nodes in turn, by name (spec section 5)."""

from __future__ import annotations

import numpy as np

from cloudai.scheduling.requests import TaskRequest
from cloudai.scheduling.scheduler import Context, Ranking
from cloudai.scheduling.snapshot import BoolArray


class RoundRobin:
    """Goes round the fleet: the first feasible node from `position` on; the next call starts behind it."""

    name = "round-robin"

    def __init__(self, position: int = 0) -> None:
        #: row from which the next decision looks; any whole number, so that processes can start apart
        self.position = position

    def rank(self, task: TaskRequest, context: Context, feasible: BoolArray, count: int) -> Ranking:
        """As Scheduler.rank; it does not score, and needs neither parameters nor telemetry."""
        rows = np.flatnonzero(feasible)
        if not rows.size:
            return Ranking(rows=())
        start = int(np.searchsorted(rows, self.position % feasible.size))
        taken = rows[(start + np.arange(min(count, rows.size))) % rows.size].tolist()
        self.position = taken[0] + 1
        return Ranking(rows=taken)
