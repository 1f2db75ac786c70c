"""A process that submits with `apply_async` and times what CloudAI does: deciding, and putting into the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cloudai.bench import cloudai_app
from cloudai.bench.conversation import serve


class _Stopwatch:
    """Adds up the time spent in the calls that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


_watch = _Stopwatch()
# The two steps of every submission, whichever way it goes.
_deployment: Any = cloudai_app.app.deployment
_deployment.placing.decide_into = _watch.around(_deployment.placing.decide_into)
_deployment.submit = _watch.around(_deployment.submit)


def place(count: int) -> dict[str, float]:
    """Milliseconds of one placement and, beside it, of a PING: median and 99th percentile."""
    seconds, round_trips, ids = [], [], []
    client = cloudai_app.app.deployment.client
    for _ in range(count):
        before = _watch.seconds
        ids.append(cloudai_app.trivial.apply_async(args=(count,)).id)
        seconds.append(_watch.seconds - before)
        started = time.perf_counter()
        client.ping()
        round_trips.append(time.perf_counter() - started)
    cloudai_app.forget(ids)
    return {
        "p50": float(np.percentile(seconds, 50)) * 1e3,
        "p99": float(np.percentile(seconds, 99)) * 1e3,
        "ping_p50": float(np.percentile(round_trips, 50)) * 1e3,
        "ping_p99": float(np.percentile(round_trips, 99)) * 1e3,
    }


if __name__ == "__main__":
    serve({"place": place})
