"""What is replayed: the tasks, the fleet, and the truth about runtimes. Plain values over numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cloudai.scheduling.task_types import TASK_TYPES
from cloudai.scheduling.units import MILLI

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

TYPES = len(TASK_TYPES)


class InvalidReplay(ValueError):
    """What was given cannot be replayed; the message names the field, what was given and what is allowed."""


@dataclass(frozen=True, eq=False)
class Workload:
    """Tasks in order of arrival; every array has shape (m,). Amounts are integers, as in the live ledger."""

    #: s, ascending
    arrival: Floats
    #: true uncontended runtime on a reference node, s, above 0
    runtime: Floats
    #: s, on the clock of the arrivals
    deadline: Floats
    #: position in TASK_TYPES
    task_type: Ints
    cpu_milli: Ints
    memory_kib: Ints
    gpu_milli: Ints
    storage_kib: Ints
    #: 0, 1, ...; -1: none
    family: Ints
    #: the user's own limit of the runtime, s; inf: none
    limit: Floats
    #: row of the fleet's `allowed`: which nodes match its constraints and target
    constraint: Ints

    @classmethod
    def of(
        cls,
        arrival: Floats,
        runtime: Floats,
        deadline: Floats,
        task_type: Ints,
        *,
        cpu_milli: Ints,
        memory_kib: Ints | int = 0,
        gpu_milli: Ints | int = 0,
        storage_kib: Ints | int = 0,
        family: Ints | int = -1,
        limit: Floats | float = np.inf,
        constraint: Ints | int = 0,
    ) -> Workload:
        """Make one from arrays or single values, sorted by arrival. InvalidReplay names what cannot be used."""
        count = len(arrival)
        order = np.argsort(np.asarray(arrival, dtype=np.float64), kind="stable")

        def floats(values: object) -> Floats:
            return np.ascontiguousarray(np.broadcast_to(np.asarray(values, dtype=np.float64), (count,))[order])

        def ints(values: object) -> Ints:
            return np.ascontiguousarray(np.broadcast_to(np.asarray(values, dtype=np.int64), (count,))[order])

        made = cls(
            arrival=floats(arrival),
            runtime=floats(runtime),
            deadline=floats(deadline),
            task_type=ints(task_type),
            cpu_milli=ints(cpu_milli),
            memory_kib=ints(memory_kib),
            gpu_milli=ints(gpu_milli),
            storage_kib=ints(storage_kib),
            family=ints(family),
            limit=floats(limit),
            constraint=ints(constraint),
        )
        made._check()
        return made

    def __len__(self) -> int:
        return len(self.arrival)

    def part(self, first: int, last: int) -> Workload:
        """The tasks from `first` up to but without `last`, as a workload of its own."""
        rows = {name: getattr(self, name)[first:last].copy() for name in _ARRAYS}
        return Workload(**rows)

    @cached_property
    def families(self) -> int:
        """Number of families: the highest label and one."""
        return int(self.family.max(initial=-1)) + 1

    @cached_property
    def shapes(self) -> Shapes:
        """The tasks by shape of request."""
        return Shapes.of(self)

    def _check(self) -> None:
        for name, low in (("runtime", 0.0), ("arrival", -np.inf), ("deadline", -np.inf)):
            values = getattr(self, name)
            if not (np.isfinite(values).all() and (values > low).all()):
                raise InvalidReplay(f"{name}: every task needs a finite number" + (" above 0" if low == 0 else ""))
        if not ((self.task_type >= 0) & (self.task_type < TYPES)).all():
            raise InvalidReplay(f"task_type: allowed are the positions 0 to {TYPES - 1} of the six types")
        for name in ("cpu_milli", "memory_kib", "gpu_milli", "storage_kib", "constraint"):
            if (getattr(self, name) < 0).any():
                raise InvalidReplay(f"{name}: allowed are whole numbers from 0")
        if ((self.gpu_milli > MILLI) & (self.gpu_milli % MILLI != 0)).any():
            raise InvalidReplay("gpu_milli: allowed are a share below 1000 and whole multiples of 1000")
        if np.isnan(self.limit).any() or (self.limit <= 0).any():
            raise InvalidReplay("limit: allowed are seconds above 0; inf is none")


_ARRAYS = (
    "arrival", "runtime", "deadline", "task_type", "cpu_milli", "memory_kib", "gpu_milli", "storage_kib", "family",
    "limit", "constraint",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shapes:
    """The tasks sorted by shape, then deadline, arrival and place: the waiting set is a bitmap over this order.

    A shape is what placement cannot tell apart (TaskRequest.shape): amounts, type, family,
    constraint, limit.
    """

    #: (m,) shape of each task
    of_task: Ints
    #: (m,) place of each task in the sorted order
    place: Ints
    #: (m,) task at each place
    task: Ints
    #: (m,) deadline at each place, s
    deadline: Floats
    #: (s + 1,) first place of each shape
    begin: Ints
    #: (s,) a task of each shape
    example: Ints

    @classmethod
    def of(cls, workload: Workload) -> Shapes:
        """Sort the tasks of a workload by shape."""
        keys = np.stack(
            [getattr(workload, name) for name in ("cpu_milli", "memory_kib", "gpu_milli", "storage_kib")]
            + [workload.task_type, workload.family, workload.constraint]
            # Tasks of a shape have one predicted runtime, which the user's limit bounds.
            + [np.unique(workload.limit, return_inverse=True)[1].reshape(-1)]
        )
        _, example, of_task = np.unique(keys, axis=1, return_index=True, return_inverse=True)
        of_task = np.asarray(of_task, dtype=np.int64).reshape(-1)
        task = np.lexsort((np.arange(len(workload)), workload.arrival, workload.deadline, of_task)).astype(np.int64)
        place = np.empty_like(task)
        place[task] = np.arange(len(task))
        counts = np.bincount(of_task, minlength=len(example))
        return cls(
            of_task=of_task,
            place=place,
            task=task,
            deadline=np.ascontiguousarray(workload.deadline[task]),
            begin=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            example=np.asarray(example, dtype=np.int64),
        )


@dataclass(frozen=True, eq=False)
class Fleet:
    """Nodes in the order of their names (ties go to the first); every array has shape (n,)."""

    names: tuple[str, ...]
    cpu_milli: Ints
    memory_kib: Ints
    #: devices
    gpus: Ints
    storage_kib: Ints
    #: tasks at once
    slots: Ints
    #: (c, n) bool: which nodes a task of each constraint may use; row 0 is "no constraint"
    allowed: Bools

    @classmethod
    def of(
        cls,
        cpu_milli: Ints,
        *,
        memory_kib: Ints | int = 2**40,
        gpus: Ints | int = 0,
        storage_kib: Ints | int = 2**40,
        slots: Ints | int = 2**20,
        names: tuple[str, ...] = (),
        allowed: Bools | None = None,
    ) -> Fleet:
        """Make one from arrays or single values. InvalidReplay names what cannot be used."""
        count = len(cpu_milli)

        def ints(values: object) -> Ints:
            return np.ascontiguousarray(np.broadcast_to(np.asarray(values, dtype=np.int64), (count,)))

        made = cls(
            names=names or tuple(f"node-{row:05d}" for row in range(count)),
            cpu_milli=ints(cpu_milli),
            memory_kib=ints(memory_kib),
            gpus=ints(gpus),
            storage_kib=ints(storage_kib),
            slots=ints(slots),
            allowed=np.ones((1, count), dtype=np.bool_) if allowed is None else np.ascontiguousarray(allowed),
        )
        if not count or len(made.names) != count or made.allowed.shape[1] != count:
            raise InvalidReplay("fleet: at least one node, with as many names and columns of `allowed` as nodes")
        if not made.allowed[0].all():
            raise InvalidReplay("allowed: row 0 is no constraint, and allows every node")
        if list(made.names) != sorted(set(made.names)):
            raise InvalidReplay("names: allowed are different names in ascending order")
        if any((getattr(made, name) < 0).any() for name in _CAPACITIES):
            raise InvalidReplay("fleet: capacities are whole numbers from 0")
        return made

    def __len__(self) -> int:
        return len(self.names)


_CAPACITIES = ("cpu_milli", "memory_kib", "gpus", "storage_kib", "slots")


@dataclass(frozen=True, eq=False)
class Environment:
    """The truth that the scheduler does not see.

    Runtime of task i on node j = runtime_i * factor[type_i, j] * (1 + contention . features) * noise_i, where the
    features are the four of its placement (spec section 5). Every candidate meets the same noise.
    """

    #: (6, n) runtime there over that on the reference node
    factor: Floats
    #: (m,) multiplier of each task
    noise: Floats
    #: (4,) true weights of cpu ratio, memory ratio, gpu ratio and load
    contention: Floats = field(default_factory=lambda: np.zeros(4))
    #: (6,) cores used over cores asked, by type; above 1 a node can be overloaded
    cpu_use: Floats = field(default_factory=lambda: np.ones(TYPES))
    #: (n,) CPU pressure of what is beside our tasks; None: none
    pressure: Floats | None = None
    #: ea, eb, ec: energy of a core-second, a GiB-second, a GPU-second (spec section 7)
    energy: tuple[float, float, float] = (1.0, 0.1, 5.0)

    @classmethod
    def plain(cls, workload: Workload, fleet: Fleet) -> Environment:
        """Every node is the reference node; no contention, no noise."""
        return cls(factor=np.ones((TYPES, len(fleet))), noise=np.ones(len(workload)))
