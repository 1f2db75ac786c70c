"""A process that submits with one application, the reference's or the candidate's: `python -m ... MODULE`."""

from __future__ import annotations

import cProfile
import importlib
import io
import pstats
import sys
import time
from typing import Any

from cloudai.bench.conversation import serve

#: Functions that a profile shows.
_HOTTEST = 25


class Producer:
    """Submits the module's `trivial` task."""

    def __init__(self, module: str) -> None:
        self._module: Any = importlib.import_module(module)
        self._ids: list[str] = []

    def submit(self, count: int, total: int) -> float:
        """Submit one by one; seconds that it took. `total`: tasks in the backlog that this belongs to."""
        apply_async, ids = self._module.trivial.apply_async, self._ids
        started = time.perf_counter()
        for _ in range(count):
            ids.append(apply_async(args=(total,)).id)
        return time.perf_counter() - started

    def bulk(self, count: int) -> float:
        """Submit many at once; seconds that it took."""
        started = time.perf_counter()
        self._ids += self._module.submit_bulk(count)
        return time.perf_counter() - started

    def forget(self) -> None:
        """Take back what was submitted."""
        self._module.forget(self._ids)
        self._ids.clear()

    def outstanding(self) -> int:
        """Tasks that are not done."""
        count: int = self._module.outstanding()
        self._ids.clear()
        return count

    def profile(self, count: int, bulk: bool) -> str:
        """The hottest functions of `submit` or `bulk`, by their own time."""
        profiler = cProfile.Profile()
        if bulk:
            profiler.runcall(self.bulk, count)
        else:
            profiler.runcall(self.submit, count, count)
        text = io.StringIO()
        pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(_HOTTEST)
        return text.getvalue()


def main() -> None:
    """Serve the module named on the command line."""
    producer = Producer(sys.argv[1])
    serve(
        {
            "submit": producer.submit,
            "bulk": producer.bulk,
            "forget": producer.forget,
            "outstanding": producer.outstanding,
            "profile": producer.profile,
        }
    )


if __name__ == "__main__":
    main()
