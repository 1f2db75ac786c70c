"""A trace in memory: jobs as columns, sorted by arrival."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from math import nan
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloudai.scheduling.requests import DEFAULT_CPU_MILLI, DEFAULT_MEMORY_KIB
from cloudai.scheduling.resources import LEAST_MEMORY_KIB
from cloudai.scheduling.task_types import TASK_TYPES, TaskType, infer_task_type
from cloudai.scheduling.units import KIB_PER_GIB, MILLI
from cloudai_beat.simulation.errors import TraceRefused

FloatColumn: TypeAlias = NDArray[np.float64]
IntColumn: TypeAlias = NDArray[np.int64]

#: Units of the columns of `Trace.demand` in the unit that people read: cores, GiB, devices, GiB (of disk).
PER_UNIT = np.array([MILLI, KIB_PER_GIB, MILLI, KIB_PER_GIB], dtype=np.float64)

_TYPE_INDEX = {str(kind): index for index, kind in enumerate(TASK_TYPES)}


class Job(NamedTuple):
    """A row of a trace as a reader found it, checked; 0 cores or GiB: not recorded."""

    #: where it stands in the file, from 1
    line: int
    #: s, by the trace's clock
    arrival_s: float
    #: measured run time, s
    runtime_s: float
    #: cores
    cpu: float
    #: GiB
    memory_gib: float = 0.0
    #: devices
    gpu: float = 0.0
    #: GiB
    storage_gib: float = 0.0
    user: str = ""
    #: what kind of job: what repeats; "": none
    family: str = ""
    #: the user's own limit of the run time, s; NaN: none
    limit_s: float = nan
    #: the user's own deadline, s after the arrival; NaN: none
    deadline_s: float = nan
    #: a task type by name; "": inferred from the request
    task_type: str = ""


@dataclass(frozen=True)
class Trace:
    """Jobs as columns of shape (n,), sorted by arrival; the first arrives at 0."""

    #: what the user called it
    source: str
    #: s since the first job
    arrival_s: FloatColumn
    #: on a machine of speed 1, s
    runtime_s: FloatColumn
    #: (n, 4): what is reserved, in the integer units of `Resources`: cpu, memory, gpu, storage
    demand: IntColumn
    #: index in TASK_TYPES
    kind: IntColumn
    #: code of the family, from 0; -1: none
    family: IntColumn
    #: s; NaN: none
    limit_s: FloatColumn
    #: s after the arrival; NaN: none
    deadline_s: FloatColumn
    #: line in the file, from 1; 0 in a synthetic trace
    line: IntColumn
    #: rows that were no jobs to replay (they never ran)
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def span_s(self) -> float:
        """From the first arrival to the last, s."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    def part(self, start: int, count: int) -> Trace:
        """`count` jobs in a row from `start`; the first arrives at 0."""
        part = self.rows(slice(start, start + count))
        return replace(part, arrival_s=part.arrival_s - part.arrival_s[0])

    def rows(self, chosen: slice | IntColumn) -> Trace:
        """These jobs, in this order; times stay."""
        columns = {
            item.name: getattr(self, item.name)[chosen]
            for item in fields(self)
            if item.name not in ("source", "left_out")
        }
        return replace(self, **columns)


def trace_of(source: str, jobs: Iterable[Job], *, left_out: int = 0) -> Trace:
    """A trace of rows in any order. TraceRefused where there are none."""
    rows = sorted(jobs, key=lambda job: job.arrival_s)
    if not rows:
        ran = f" that ran ({left_out} did not)" if left_out else ""
        raise TraceRefused(source, f"no jobs{ran}: at least one is needed")
    families: dict[str, int] = {}
    arrival = np.array([job.arrival_s for job in rows])
    return Trace(
        source=source,
        arrival_s=arrival - arrival[0],
        runtime_s=np.array([job.runtime_s for job in rows]),
        demand=_reserved(rows),
        kind=np.array([_kind(job) for job in rows], dtype=np.int64),
        family=np.array(
            [families.setdefault(job.family, len(families)) if job.family else -1 for job in rows], dtype=np.int64
        ),
        limit_s=np.array([job.limit_s for job in rows]),
        deadline_s=np.array([job.deadline_s for job in rows]),
        line=np.array([job.line for job in rows], dtype=np.int64),
        left_out=left_out,
    )


def described(amounts: Iterable[float]) -> str:
    """Amounts in the integer units of `Trace.demand`, for people: only what is above 0."""
    shown = zip(("cpu", "memory", "gpu", "storage"), ("", " GiB", "", " GiB"), amounts, PER_UNIT, strict=True)
    return ", ".join(f"{name} {amount / per:g}{unit}" for name, unit, amount, per in shown if amount) or "nothing"


def _kind(job: Job) -> int:
    kind: str | TaskType = job.task_type or infer_task_type(job.cpu, job.memory_gib, job.gpu)
    return _TYPE_INDEX[str(kind)]


def _reserved(rows: list[Job]) -> IntColumn:
    """What the live system would reserve: its defaults where nothing was recorded, whole devices above one.

    Memory that the whole trace does not record is left out: a default would make it the scarce resource.
    """
    asked = np.array([(job.cpu, job.memory_gib, job.gpu, job.storage_gib) for job in rows], dtype=np.float64)
    gpu = asked[:, 2]
    asked[:, 2] = np.where(gpu > 1, np.ceil(gpu), gpu)
    # Rounded up as `units.to_milli` and `to_kib` do.
    demand = np.ceil(np.round(asked * PER_UNIT, 6)).astype(np.int64)
    demand = np.maximum(demand, asked > 0)
    demand[:, 0] = np.where(asked[:, 0] > 0, demand[:, 0], DEFAULT_CPU_MILLI)
    if asked[:, 1].any():
        demand[:, 1] = np.where(asked[:, 1] > 0, np.maximum(demand[:, 1], LEAST_MEMORY_KIB), DEFAULT_MEMORY_KIB)
    return np.ascontiguousarray(demand)
