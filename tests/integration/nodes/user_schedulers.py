"""Schedulers as a user would write them."""

from __future__ import annotations

import numpy as np

from cloudai.scheduling.requests import TaskRequest
from cloudai.scheduling.scheduler import Context, Ranking
from cloudai.scheduling.snapshot import BoolArray


class Last:
    """The last feasible node first."""

    name = "last"

    def rank(self, task: TaskRequest, context: Context, feasible: BoolArray, count: int) -> Ranking:
        return Ranking(rows=np.flatnonzero(feasible)[::-1][:count])


class Broken:
    """Raises."""

    name = "broken"

    def rank(self, task: TaskRequest, context: Context, feasible: BoolArray, count: int) -> Ranking:
        raise RuntimeError("no idea")
