"""What each node did over a window, from its attempts, its samples and the registry: pure (spec section 7)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloudai import names
from cloudai.history.reading import Unreadable, amount, optional, read_all, required
from cloudai.history.records import WorkerStats

#: A node's clocks are kept once in so many seconds of each incarnation; between two they are read off a straight line.
SAMPLE_BUCKET_S = 600.0

#: What is read of a document of RESULTS.
RESULT_FIELDS = (
    "worker_id", "outcome", "final", "sla_success", "actual_finish", "actual_runtime", "cpu_used", "mem_used",
    "gpu_used",
)  # fmt: skip


@dataclass(slots=True)
class _Sums:
    tasks_run: int = 0
    sla_violations: int = 0
    total_runtime: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    gpu: float = 0.0


@dataclass(frozen=True, slots=True)
class _Attempt:
    worker_id: str
    violation: bool
    runtime: float
    cpu: float
    memory: float
    gpu: float


@dataclass(frozen=True, slots=True)
class _Sample:
    worker_id: str
    incarnation: str
    #: Epoch seconds.
    registered_at: float
    time: float
    #: Seconds since this incarnation began: with load above 1, and the integral of what was above 1.
    overload: float
    excess: float


def workers_over_window(
    results: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    registry: Sequence[Mapping[str, Any]],
    since: float,
    until: float,
    skipped: Counter[str],
) -> list[WorkerStats]:
    """One record a node that ran anything or was heard in the window, by name; all that cannot be read is counted.

    `samples` reach back one bucket before `since`, so that the clocks have a place to start from.
    """
    sums: dict[str, _Sums] = defaultdict(_Sums)
    for attempt in read_all(results, _attempt, skipped):
        total = sums[attempt.worker_id]
        total.tasks_run += 1
        total.sla_violations += attempt.violation
        total.total_runtime += attempt.runtime
        total.cpu += attempt.cpu
        total.memory += attempt.memory
        total.gpu += attempt.gpu
    clocks = _clocks(read_all(samples, _sample, skipped), since, until)
    capacities = dict(read_all(registry, _capacity, skipped))
    records = []
    for name in sorted(sums.keys() | clocks.keys()):
        present, overload, excess = clocks.get(name, (0.0, 0.0, 0.0))
        cpu, memory, gpu = capacities.get(name, (0.0, 0.0, 0.0))
        total = sums[name]
        records.append(
            WorkerStats(
                worker_id=name,
                tasks_run=total.tasks_run,
                sla_violations=total.sla_violations,
                total_runtime=total.total_runtime,
                cpu_used_total=total.cpu,
                mem_used_total=total.memory,
                gpu_used_total=total.gpu,
                overload_time=overload,
                total_time=present,
                cpu=cpu,
                memory=memory,
                gpu=gpu,
                overload_excess=excess,
            )
        )
    return records


def _clocks(samples: Sequence[_Sample], since: float, until: float) -> dict[str, tuple[float, float, float]]:
    """Seconds in the fleet, overload and excess of each node, from `since` to `until`."""
    lives: dict[tuple[str, str], list[_Sample]] = defaultdict(list)
    for sample in samples:
        lives[sample.worker_id, sample.incarnation].append(sample)
    totals: dict[str, tuple[float, float, float]] = {}
    for (name, _), life in lives.items():
        life.sort(key=lambda sample: sample.time)
        begun = life[0].registered_at
        times = np.array([begun, *(sample.time for sample in life)])
        clocks = np.array(
            [(0.0, 0.0, 0.0), *((s.time - begun, s.overload, s.excess) for s in life)], dtype=np.float64
        )
        # Clocks never run back, whatever a document says. np.interp holds the first and the last value outside of them.
        clocks = np.maximum.accumulate(clocks)
        lived = [
            max(0.0, float(np.interp(until, times, column) - np.interp(since, times, column)))
            for column in clocks.T
        ]
        if lived[0] > 0:
            before = totals.get(name, (0.0, 0.0, 0.0))
            totals[name] = (before[0] + lived[0], before[1] + lived[1], before[2] + lived[2])
    return totals


def _attempt(document: Mapping[str, Any]) -> _Attempt:
    name, outcome = document.get("worker_id"), document.get("outcome")
    if not isinstance(name, str) or not name:
        raise Unreadable("worker_id is missing or no text")
    final, sla_success = document.get("final", True), document.get("sla_success")
    if not isinstance(sla_success, bool):
        raise Unreadable("sla_success is missing or no truth value")
    return _Attempt(
        worker_id=name,
        violation=bool(final) and not sla_success and outcome != names.CANCELLED,
        runtime=amount(document, "actual_runtime"),
        cpu=amount(document, "cpu_used"),
        memory=amount(document, "mem_used"),
        gpu=amount(document, "gpu_used"),
    )


def _sample(document: Mapping[str, Any]) -> _Sample:
    name, incarnation = document.get("worker_id"), document.get("incarnation")
    if not isinstance(name, str) or not name or not isinstance(incarnation, str):
        raise Unreadable("a node's sample without its name")
    time, registered_at = required(document, "time"), required(document, "registered_at")
    if time < registered_at:
        raise Unreadable("a node's sample from before it registered")
    overload, excess = optional(document, "overload_s"), optional(document, "overload_excess_s")
    return _Sample(name, incarnation, registered_at, time, overload or 0.0, excess or 0.0)


def _capacity(document: Mapping[str, Any]) -> tuple[str, tuple[float, float, float]]:
    name = document.get("worker_id")
    if not isinstance(name, str):
        raise Unreadable("a node of the registry without its name")
    return name, (amount(document, "cpu"), amount(document, "memory"), amount(document, "gpu"))
