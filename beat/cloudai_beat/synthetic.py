"""A history whose truth is known: for tests, and for the benchmark of the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cloudai.history.collections import RESULTS, WORKER_REGISTRY, WORKER_STATS
from cloudai.history.documents import Changes, day, sequence
from cloudai.history.records import TaskHistory, WorkerStats
from cloudai.names import FAILED, SUCCEEDED
from cloudai_beat.columns import TYPES

#: What a task of each type asks for: cores, GiB, devices.
_ASKS = {
    "cpu-light": (0.5, 0.5, 0.0),
    "cpu-heavy": (4.0, 2.0, 0.0),
    "memory-heavy": (1.0, 12.0, 0.0),
    "gpu-inference": (1.0, 4.0, 0.5),
    "gpu-training": (4.0, 8.0, 1.0),
    "mixed": (1.0, 1.0, 0.0),
}
#: Every node of a synthetic fleet: cores, GiB, devices.
_CAPACITY = (16.0, 64.0, 4.0)


@dataclass(frozen=True)
class Truth:
    """What the history is drawn from."""

    theta: tuple[float, float, float, float] = (0.1, 0.1, 0.3, 0.2)
    #: Node -> speed factor, runtime there over that of the reference.
    speeds: Mapping[str, float] = field(default_factory=lambda: {f"node-{i:02d}": 1.0 for i in range(4)})
    #: Type -> node -> its own factor beside the node's; missing: 1.
    own: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    #: Type -> uncontended runtime on the reference, seconds.
    runtimes: Mapping[str, float] = field(
        default_factory=lambda: dict(zip(TYPES, (5.0, 15.0, 20.0, 10.0, 60.0, 8.0), strict=True))
    )
    #: Sigma of the logarithm of the runtime's noise.
    noise: float = 0.1
    #: Node -> share of its tasks that fail.
    failures: Mapping[str, float] = field(default_factory=dict)
    #: Deadline over the mean runtime of the type.
    k: float = 2.0


def synthetic_history(
    truth: Truth, records: int, *, seed: int, begin: float = 1.7e9, span_s: float = 86_400.0
) -> tuple[list[TaskHistory], list[WorkerStats]]:
    """`records` attempts, newest first, over `span_s` seconds from `begin` (epoch s), and their nodes."""
    chance = np.random.default_rng(seed)
    names = sorted(truth.speeds)
    kinds = chance.integers(len(TYPES), size=records)
    nodes = chance.integers(len(names), size=records)
    asked = np.array([_ASKS[kind] for kind in TYPES])[kinds]
    # Something is taken on every node, seldom all of it.
    free = np.array(_CAPACITY) * (1.0 - 0.85 * chance.random((records, 3)))
    ratios = np.minimum(1.0, asked / np.maximum(free, asked))
    features = np.column_stack([ratios, chance.uniform(0.0, 1.2, records)])
    speed = np.array([truth.speeds[name] for name in names])[nodes]
    own = np.array([[truth.own.get(kind, {}).get(name, 1.0) for name in names] for kind in TYPES])[kinds, nodes]
    plain = np.array([truth.runtimes[kind] for kind in TYPES])[kinds]
    noise = np.exp(chance.normal(0.0, truth.noise, records) - truth.noise**2 / 2)
    runtime = plain * speed * own * (1.0 + features @ np.array(truth.theta)) * noise
    arrival = np.sort(begin + span_s * chance.random(records))[::-1]
    fails = chance.random(records) < np.array([truth.failures.get(name, 0.0) for name in names])[nodes]
    waited = chance.exponential(0.5, records)
    history = []
    for i in range(records):
        finish = float(arrival[i] + waited[i] + runtime[i])
        deadline = float(arrival[i] + truth.k * plain[i] * 1.3)
        cpu, memory, gpu = map(float, asked[i])
        cpu_ratio, memory_ratio, gpu_ratio, load = map(float, features[i])
        history.append(
            TaskHistory(
                task_id=f"task-{i:06d}",
                attempt=1,
                worker_id=names[nodes[i]],
                task_type=TYPES[kinds[i]],
                outcome=FAILED if fails[i] else SUCCEEDED,
                final=True,
                arrival_time=float(arrival[i]),
                deadline=deadline,
                actual_start=float(arrival[i] + waited[i]),
                actual_finish=finish,
                actual_runtime=float(runtime[i]),
                sla_success=bool(not fails[i] and finish <= deadline),
                cpu_used=cpu * float(runtime[i]),
                mem_used=memory * float(runtime[i]),
                gpu_used=gpu * float(runtime[i]),
                cpu=cpu,
                memory=memory,
                gpu=gpu,
                load_at_start=load,
                overload_time=float(runtime[i]) if load > 1 else 0.0,
                tau=float(plain[i]),
                predicted_runtime=float(plain[i]),
                features=(cpu_ratio, memory_ratio, gpu_ratio, load),
            )
        )
    return history, _workers(history, names, span_s)


def history_documents(history: Sequence[TaskHistory], workers: Sequence[WorkerStats], now: float) -> Changes:
    """The same as documents, so that the newest attempt ended a second before `now` (epoch s)."""
    changes = Changes()
    moved = now - 1.0 - max(record.actual_finish for record in history)
    for record in history:
        fields: dict[str, Any] = {name: getattr(record, name) for name in TaskHistory.__slots__}
        for name in ("arrival_time", "deadline", "actual_start", "actual_finish"):
            fields[name] += moved
        fields["features"] = list(record.features or ())
        changes.set(RESULTS, f"{record.task_id}/{record.attempt}", {**fields, **_stamp(fields["actual_finish"])})
    for worker in workers:
        name = worker.worker_id
        known = {"worker_id": name, "cpu": worker.cpu, "memory": worker.memory, "gpu": worker.gpu, "state": "up"}
        changes.set(WORKER_REGISTRY, name, {**known, "since": now, **_stamp(now)})
        clocks = {"overload_s": worker.overload_time, "overload_excess_s": worker.overload_excess}
        began = now - worker.total_time
        sample = {"worker_id": name, "incarnation": "1", "registered_at": began, "time": now, **clocks}
        changes.set(WORKER_STATS, f"{name}/1", {**sample, **_stamp(now)})
    return changes


def _stamp(at: float) -> dict[str, Any]:
    return {"seq": sequence(f"{round(at * 1000)}-0"), "at": day(at)}


def _workers(history: list[TaskHistory], names: list[str], span_s: float) -> list[WorkerStats]:
    by_node: dict[str, list[TaskHistory]] = {name: [] for name in names}
    for record in history:
        by_node[record.worker_id].append(record)
    cpu, memory, gpu = _CAPACITY
    return [
        WorkerStats(
            worker_id=name,
            tasks_run=len(run),
            sla_violations=sum(not record.sla_success for record in run),
            total_runtime=sum(record.actual_runtime or 0.0 for record in run),
            cpu_used_total=sum(record.cpu_used or 0.0 for record in run),
            mem_used_total=sum(record.mem_used or 0.0 for record in run),
            gpu_used_total=sum(record.gpu_used or 0.0 for record in run),
            overload_time=min(span_s, sum(record.overload_time or 0.0 for record in run)),
            total_time=span_s,
            cpu=cpu,
            memory=memory,
            gpu=gpu,
        )
        for name, run in by_node.items()
    ]
