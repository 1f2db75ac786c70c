"""The body of the small task, the same on all sides: it notes when the first and the last one ran."""

from __future__ import annotations

import itertools
import time

from redis import Redis

#: List to which the span of a backlog is pushed, seconds.
SPANS = "bench:spans"

_calls = itertools.count()
_first = 0.0


def body(total: int, url: str) -> None:
    """Count the calls; the last of `total` tells how long all took, from the start of the first."""
    global _first
    place = next(_calls) % total
    if place == 0:
        _first = time.monotonic()
    elif place == total - 1:
        span = time.monotonic() - _first
        with Redis.from_url(url) as client:
            client.rpush(SPANS, span)
