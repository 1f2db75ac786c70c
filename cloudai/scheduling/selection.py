"""The best few of many scores, with ties broken the same way in every process."""

from __future__ import annotations

from math import inf

import numpy as np

from cloudai.scheduling.formula import SAME
from cloudai.scheduling.snapshot import BoolArray, FloatArray


def lowest(scores: FloatArray, second: FloatArray, allowed: BoolArray, count: int) -> list[int]:
    """Rows of the `count` lowest finite scores among the allowed, best first; arrays of shape (n,).

    Equal scores go by the lower `second`, compared to 7 digits, then by the lower row. There are fewer rows,
    or none, where fewer are finite. A repeated argmin is faster than a partition for the few that are asked
    for.
    """
    left: FloatArray = np.where(allowed, scores, inf)
    rows: list[int] = []
    row = left.argmin().item()
    value = left.item(row)
    if not -inf < value <= inf:  # argmin stops at a NaN; the others may be fine
        left[~np.isfinite(left)] = inf
        row = left.argmin().item()
        value = left.item(row)
    while value < inf and len(rows) < count:
        left[row] = inf
        bound = value + SAME * (1.0 + abs(value))
        following = left.argmin().item()
        next_value = left.item(following)
        if next_value <= bound:
            left[row] = value
            tied = np.flatnonzero(left <= bound)
            breaker = second[tied].astype(np.float32)
            for _ in range(min(count - len(rows), tied.size)):
                first = breaker.argmin()
                rows.append(tied.item(first))
                breaker[first] = inf
            left[tied] = inf
            following = left.argmin().item()
            next_value = left.item(following)
        else:
            rows.append(row)
        row, value = following, next_value
    return rows
