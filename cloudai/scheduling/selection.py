"""The best few of many scores, with ties broken the same way in every process."""

from __future__ import annotations

from itertools import pairwise
from math import inf, isfinite

import numpy as np

from cloudai.scheduling.snapshot import BoolArray, FloatArray

#: Scores that differ by no more than this part are equal: the matrix product may round equal nodes apart.
_SAME = 1e-12
_LARGEST = float(np.finfo(np.float64).max)


def lowest(scores: FloatArray, second: FloatArray, allowed: BoolArray, count: int) -> list[int]:
    """Rows of the `count` lowest finite scores among the allowed, best first; arrays of shape (n,).

    Equal scores go by the lower `second`, then by the lower row. Fewer rows, or none, where fewer are finite.
    A repeated argmin is faster than a partition for the few that are asked for.
    """
    left: FloatArray = np.where(allowed, scores, inf)
    rows: list[int] = []
    values: list[float] = []
    # One more than asked for, to see whether the last is tied with the next.
    while len(rows) <= count:
        row = int(left.argmin())
        value = left.item(row)
        if value == inf:
            break
        if not isfinite(value):  # argmin stops at a NaN; the others may be fine
            left[~np.isfinite(left)] = inf
            continue
        rows.append(row)
        values.append(value)
        left[row] = inf
    if any(after - value <= _tolerance(value) for value, after in pairwise(values)):
        left[rows] = values
        return _with_ties(left, second, count)
    return rows[:count]


def _with_ties(left: FloatArray, second: FloatArray, count: int) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < count:
        best = left.item(left.argmin())
        if best == inf:
            break
        tied = np.flatnonzero(left <= best + _tolerance(best))
        breaker = np.fmin(second[tied], _LARGEST)  # a NaN goes last
        for _ in range(min(count - len(chosen), tied.size)):
            least = breaker.item(breaker.argmin())
            first = int((breaker <= least + _tolerance(least)).argmax())
            chosen.append(tied.item(first))
            breaker[first] = inf
        left[tied] = inf
    return chosen


def _tolerance(value: float) -> float:
    return _SAME * max(1.0, abs(value))
