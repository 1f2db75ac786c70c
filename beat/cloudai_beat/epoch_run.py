"""A process that runs one epoch on a synthetic history and measures it: for `cloudai bench`."""

from __future__ import annotations

import math
import random
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

from cloudai.bench.conversation import serve
from cloudai.deployment import Deployment
from cloudai.history.records import Reading, TaskHistory, WorkerStats
from cloudai.history.store import HistoryStore
from cloudai.settings import Settings
from cloudai_beat.contention import load_library
from cloudai_beat.control import find_search
from cloudai_beat.epoch import run_epoch
from cloudai_beat.genetic.compiling import compile_now
from cloudai_beat.searching import SearchInputs, SearchOutcome
from cloudai_beat.synthetic import Truth, history_documents, synthetic_history

_SEED = 11
#: The work arrives within so long, seconds: half of what the nodes could do.
_SPAN_S = 1200.0
#: A large read may wait for a slow disk.
_PATIENCE_S = 30.0


class _TimedHistory:
    """A history that notes how long it was read."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self.reading_s = 0.0

    def task_history(self, since: float, until: float, limit: int) -> Reading[TaskHistory]:
        began = time.perf_counter()
        found = self._store.task_history(since, until, limit)
        self.reading_s += time.perf_counter() - began
        return found

    def worker_stats(self, since: float, until: float) -> Reading[WorkerStats]:
        began = time.perf_counter()
        found = self._store.worker_stats(since, until)
        self.reading_s += time.perf_counter() - began
        return found

    def append_epoch(self, document: Mapping[str, Any]) -> str:
        return self._store.append_epoch(document)


class _TimedSearch:
    """The installed search, timed."""

    def __init__(self) -> None:
        self._search = find_search()
        self.search_s = 0.0

    def __call__(self, inputs: SearchInputs) -> SearchOutcome:
        assert self._search is not None
        began = time.perf_counter()
        found = self._search(inputs)
        self.search_s += time.perf_counter() - began
        return found


class _Bench:
    def __init__(self) -> None:
        settings = Settings.load()
        self._deployment = Deployment(settings)
        optimiser = settings.optimiser
        self._store = HistoryStore(optimiser.mongo_url, optimiser.database, timeout_s=_PATIENCE_S)

    def prepare(self, records: int, nodes: int) -> None:
        """Write the history, and have the replay engine compiled, which is done once on a machine."""
        chance = random.Random(_SEED)
        speeds = {f"node-{i:02d}": math.exp(chance.gauss(0.0, 0.5)) for i in range(nodes)}
        made = synthetic_history(Truth(speeds=speeds, noise=0.3), records, seed=_SEED, span_s=_SPAN_S)
        self._store.write(history_documents(*made, now=time.time()))
        compile_now()
        # As the control process does when it starts.
        load_library()

    def epoch(self) -> dict[str, Any]:
        """Run it; seconds, MiB, and what its report says."""
        history, search = _TimedHistory(self._store), _TimedSearch()
        before = _peak_mib()
        report = run_epoch(self._deployment, history, search=search, trigger="bench")
        return {
            "took_s": report.took_s,
            "reading_s": history.reading_s,
            "search_s": search.search_s,
            "evaluations": report.search.evaluations if report.search else 0,
            "records": report.records,
            "outcome": report.outcome,
            "reason": report.reason,
            "search": report.search.reason if report.search else "",
            "before_mib": before,
            "peak_mib": _peak_mib(),
        }


def _peak_mib() -> float:
    # Linux counts KiB, macOS bytes.
    unit = 1024 if sys.platform == "linux" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    bench = _Bench()
    serve({"prepare": bench.prepare, "epoch": bench.epoch})
