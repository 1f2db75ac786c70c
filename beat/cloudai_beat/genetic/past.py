"""The recorded work as the replay engine reads it, with the truth about runtimes that was fitted from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cloudai import names
from cloudai.history.records import TaskHistory, WorkerStats
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.task_types import INITIAL_TAU
from cloudai.scheduling.units import KIB_PER_GIB, MILLI
from cloudai_beat.columns import TYPES
from cloudai_beat.genetic.candidates import Case
from cloudai_beat.genetic.genes import Floats
from cloudai_beat.replay import Environment, Fleet, Options, Workload

#: A runtime may be so much longer than the task was there, s: two clocks never agree.
_CLOCKS_APART_S = 5.0
#: Attempts that used a node for as long as they ran, whatever came of them.
_RAN = frozenset({names.SUCCEEDED, names.FAILED, names.TIMED_OUT})
#: The most devices of a node that the engine takes.
_MOST_GPUS = 62
#: A sample is thinner than the work was if the nodes were busy so much longer than its attempts ran.
_THINNER = 1.1
Ints = NDArray[np.int64]

_INDEX = {kind: place for place, kind in enumerate(TYPES)}


@dataclass(frozen=True)
class Past:
    """What can be replayed of a window."""

    case: Case
    #: Records and nodes that could not be replayed: how many, by reason.
    left_out: Mapping[str, int]
    #: Arrivals were moved together by this, because the records are a sample of more work; 1: they were not.
    thinned: float = 1.0


class NothingToReplay(ValueError):
    """The window cannot be replayed; the message says why."""


def past_of(
    history: Sequence[TaskHistory],
    workers: Sequence[WorkerStats],
    learned: GAParams,
    options: Options = Options(),  # noqa: B008 - frozen
) -> Past:
    """The attempts of a window as work over its nodes; `learned` has the speeds and theta that were fitted from it.

    `options` say how tau is learned, as in the live system.

    A task's runtime on a reference node is its measured runtime over the factor of its node and the contention of its
    placement. Constraints and targets are not recorded: every task may go wherever it fits. NothingToReplay where
    there are no attempts or no nodes to speak of.
    """
    left_out: Counter[str] = Counter()
    fleet = _fleet(workers, learned, left_out)
    kept = [record for record in history if _usable(record, left_out)]
    kept.sort(key=lambda record: (record.arrival_time, record.task_id))
    kept = _that_fit(kept, fleet, left_out)
    if not kept:
        raise NothingToReplay("no attempt of the window can be replayed" + _because(left_out))
    theta = np.array([learned.theta1, learned.theta2, learned.theta3, learned.theta4])
    kind = np.array([_INDEX[record.task_type] for record in kept], dtype=np.int64)
    runtime = np.array([record.actual_runtime or 0.0 for record in kept])
    features = np.array([record.features or (0.0, 0.0, 0.0, 0.0) for record in kept], dtype=np.float64)
    features = np.clip(np.nan_to_num(features), 0.0, 20.0)
    speed = np.array([learned.speed.get(r.task_type, {}).get(r.worker_id, 1.0) for r in kept])
    begin = kept[0].arrival_time
    arrival = np.array([record.arrival_time - begin for record in kept])
    slack = np.array([record.deadline - record.arrival_time for record in kept])
    thinned = _thinned(kept, workers)
    families: dict[str, int] = {}
    amounts = np.array([(record.cpu, record.memory, record.gpu, record.storage) for record in kept])
    workload = Workload.of(
        arrival / thinned,
        runtime / (speed * (1.0 + features @ theta)),
        arrival / thinned + slack,
        kind,
        cpu_milli=_integers(amounts[:, 0], MILLI),
        memory_kib=_integers(amounts[:, 1], KIB_PER_GIB),
        gpu_milli=_devices(amounts[:, 2]),
        storage_kib=_integers(amounts[:, 3], KIB_PER_GIB),
        family=np.array(
            [families.setdefault(record.family, len(families)) if record.family else -1 for record in kept],
            dtype=np.int64,
        ),
    )
    environment = Environment(
        factor=np.array([[learned.speed.get(row, {}).get(name, 1.0) for name in fleet.names] for row in TYPES]),
        noise=np.ones(len(kept)),
        contention=theta,
        cpu_use=_use(kept, kind),
    )
    # Between two epochs the tables stay as they were published, while tau goes on learning.
    options = replace(options, tau=_first_tau(kept), learn_speed=False)
    return Past(Case(workload, fleet, environment, options), dict(left_out), thinned)


def _usable(record: TaskHistory, left_out: Counter[str]) -> bool:
    runtime, reason = record.actual_runtime, ""
    if not record.final or record.outcome not in _RAN or not record.worker_id or record.task_type not in _INDEX:
        return False
    times = (record.arrival_time, record.deadline, record.actual_finish)
    if not all(map(math.isfinite, times)):
        reason = "a time that is not finite"
    elif runtime is None or not (math.isfinite(runtime) and runtime > 0):
        reason = "no runtime that is finite and positive"
    elif runtime > record.actual_finish - record.arrival_time + _CLOCKS_APART_S:
        reason = "a runtime longer than the task was there"
    elif not all(math.isfinite(v) and v >= 0 for v in (record.cpu, record.memory, record.gpu, record.storage)):
        reason = "an amount that is no number from 0"
    if reason:
        left_out[reason] += 1
    return not reason


def _fleet(workers: Sequence[WorkerStats], learned: GAParams, left_out: Counter[str]) -> Fleet:
    """The nodes that are still there, by name: the refreshed tables name no other."""
    present = set(learned.penalty).union(*learned.speed.values(), *learned.affinity.values())
    nodes = {}
    for worker in workers:
        if present and worker.worker_id not in present:
            left_out["a node that has left"] += 1
        elif not (math.isfinite(worker.cpu) and worker.cpu > 0):
            left_out["a node whose capacity is not known"] += 1
        else:
            nodes[worker.worker_id] = worker
    if not nodes:
        raise NothingToReplay("no node of the window can be replayed" + _because(left_out))
    ordered = [nodes[name] for name in sorted(nodes)]
    memory = np.array([worker.memory for worker in ordered])
    return Fleet.of(
        _integers(np.array([worker.cpu for worker in ordered]), MILLI),
        memory_kib=np.where(memory > 0, _integers(memory, KIB_PER_GIB), 2**40),
        gpus=np.array([min(int(worker.gpu), _MOST_GPUS) for worker in ordered], dtype=np.int64),
        names=tuple(sorted(nodes)),
    )


def _that_fit(kept: list[TaskHistory], fleet: Fleet, left_out: Counter[str]) -> list[TaskHistory]:
    fits = []
    for record in kept:
        holds = (
            (fleet.cpu_milli >= math.ceil(record.cpu * MILLI - 1e-6))
            & (fleet.memory_kib >= math.ceil(record.memory * KIB_PER_GIB - 1e-6))
            & (fleet.gpus >= record.gpu)
        )
        if holds.any():
            fits.append(record)
        else:
            left_out["a task that no node of now could hold"] += 1
    return fits


def _thinned(kept: Sequence[TaskHistory], workers: Sequence[WorkerStats]) -> float:
    """By how much more work the nodes had than the records show: the window's records are capped."""
    shown = sum(record.actual_runtime or 0.0 for record in kept)
    had = sum(worker.total_runtime for worker in workers if math.isfinite(worker.total_runtime))
    return had / shown if shown > 0 and had > _THINNER * shown else 1.0


def _use(kept: Sequence[TaskHistory], kind: Ints) -> Floats:
    """Cores used over cores asked, by type; 1 where that was not measured."""
    asked, used = np.zeros(len(TYPES)), np.zeros(len(TYPES))
    for record, row in zip(kept, kind, strict=True):
        if record.cpu_used is not None and math.isfinite(record.cpu_used) and record.cpu > 0:
            asked[row] += record.cpu * (record.actual_runtime or 0.0)
            used[row] += record.cpu_used
    share = np.divide(used, asked, out=np.ones(len(TYPES)), where=asked > 0)
    found: Floats = np.clip(share, 0.0, 10.0)
    return found


def _first_tau(kept: Sequence[TaskHistory]) -> Floats:
    """What was expected of each type when the window began."""
    tau = {str(kind): seconds for kind, seconds in INITIAL_TAU.items()}
    known: set[str] = set()
    for record in kept:
        if record.task_type not in known and record.tau is not None and math.isfinite(record.tau) and record.tau > 0:
            known.add(record.task_type)
            tau[record.task_type] = record.tau
    return np.array([tau[kind] for kind in TYPES])


def _integers(amounts: Floats, unit: int) -> Ints:
    return np.ceil(np.round(np.asarray(amounts) * unit, 6)).astype(np.int64)


def _devices(gpu: Floats) -> Ints:
    """Thousandths of a device; what is more than one is whole ones."""
    return _integers(np.where(gpu > 1, np.ceil(gpu), gpu), MILLI)


def _because(left_out: Mapping[str, int]) -> str:
    return ": " + ", ".join(f"{count} with {reason}" for reason, count in left_out.items()) if left_out else ""
