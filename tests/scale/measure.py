"""What a run measures of the Redis that it loads, and of single steps. Nothing here is judged."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import redis

from cloudai.deployment import Deployment

from .observer import Event


def quantile(values: Sequence[float], share: float) -> float:
    """NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def timed(times: int, call: Callable[[], object]) -> float:
    """Median of so many calls, milliseconds."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return median(seconds) * 1e3


def used_memory(client: redis.Redis) -> int:
    """What Redis uses, without the buffers of its clients and of the append-only file, bytes."""
    stats = client.memory_stats()
    return int(client.info("memory")["used_memory"]) - int(stats["clients.normal"]) - int(stats["aof.buffer"])


def stream_memory(client: redis.Redis, key: str) -> int:
    """What the event stream takes of that, bytes."""
    return int(client.memory_usage(key, samples=0) or 0)


@dataclass(slots=True)
class Meter:
    """Figures by name, in the order in which they came; and what Redis spent in each phase."""

    client: redis.Redis
    figures: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        """A figure."""
        self.figures[name] = round(value, 4)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Redis's share of one core, and the scripts that it ran a second, in what follows."""
        before, began = self._spent(), time.monotonic()
        yield
        took, after = time.monotonic() - began, self._spent()
        self.note(f"redis_cpu_share_{name}", (after[0] - before[0]) / took)
        self.note(f"redis_scripts_per_s_{name}", (after[1] - before[1]) / took)

    def _spent(self) -> tuple[float, int]:
        cpu = self.client.info("cpu")
        calls = self.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
        return float(cpu["used_cpu_sys"]) + float(cpu["used_cpu_user"]), int(calls)

    def submissions(self, name: str, seconds: Sequence[float]) -> None:
        """Of a phase's `apply_async`."""
        self.note(f"submission_p50_ms_{name}", quantile(seconds, 0.5) * 1e3)
        self.note(f"submission_p99_ms_{name}", quantile(seconds, 0.99) * 1e3)

    def refresh(self, deployment: Deployment, behind_s: float) -> None:
        """A look at the fleet by a process that has not looked for a while."""
        view = deployment.view
        view.refresh()
        version = view.version
        time.sleep(behind_s)
        fleet = deployment.fleet
        news = fleet.refresh(version, 1_000_000, None)
        self.note("refresh_rows", news.changes.count("\n") + bool(news.changes))
        self.note("refresh_kib", len(news.changes) / 1024)
        self.note("refresh_ms", timed(5, lambda: fleet.refresh(version, 1_000_000, None)))

    def look(self, name: str, deployment: Deployment) -> None:
        """A look at the waiting set, as a node with free slots takes it."""
        deployment.view.refresh()
        version, ledger = deployment.view.version, deployment.ledger
        self.note(f"look_ms_{name}", timed(9, lambda: ledger.waiting(version, each=16)))
        self.note(f"waiting_{name}", float(self.client.zcard(deployment.keys.waiting)))


def dispatch_lags(events: Sequence[Event], begun: float, ended: float) -> list[float]:
    """From a release on a node to the next placement there, seconds, between two moments (epoch s) with a queue.

    0: both in one step. Releases that are followed by another one before anything is placed count from the first.
    """
    released: dict[str, float] = {}
    lags = []
    for event in events:
        if event.kind == "finished" and event.node and begun <= event.at <= ended:
            released.setdefault(event.node, event.at)
        elif event.kind == "placed" and event.node in released:
            lags.append(max(0.0, event.at - released.pop(event.node)))
    return lags


def placements_a_second(events: Sequence[Event]) -> tuple[float, float]:
    """Of all seconds with any the median, and the most."""
    by_second = Counter(int(event.at) for event in events if event.kind == "placed")
    return (median(by_second.values()), max(by_second.values())) if by_second else (0.0, 0.0)
