"""How long decisions took: the next script that places takes it to Redis, without a round trip of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque

#: Upper bounds of the histogram's buckets, microseconds; what took longer is in the bucket "inf".
BOUNDS_US = (25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 100_000, 1_000_000)
#: Names of the buckets, as the counters have them.
BUCKETS = (*map(str, BOUNDS_US), "inf")
#: Times that are kept until somebody takes them; a process that decides and never places must not grow.
_MOST = 1000


class DecisionTimes:
    """The times of this process's decisions that Redis has not heard of. Safe to use from threads."""

    def __init__(self) -> None:
        self._times: deque[int] = deque(maxlen=_MOST)

    def observe(self, seconds: float) -> None:
        """A decision took so long."""
        self._times.append(int(seconds * 1e6))

    def take(self) -> list[int | str]:
        """What was not taken yet: microseconds in all, then bucket and count in turn; empty where there is nothing."""
        if not self._times:
            return []
        total = 0
        counts: Counter[str] = Counter()
        while True:
            try:
                time_us = self._times.popleft()
            except IndexError:
                break
            total += time_us
            counts[BUCKETS[bisect_left(BOUNDS_US, time_us)]] += 1
        return [total, *(part for pair in counts.items() for part in pair)]
