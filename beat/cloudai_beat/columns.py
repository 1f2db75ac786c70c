"""The records of a window as columns, with what cannot be used left out and counted by its reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cloudai import names
from cloudai.history.records import TaskHistory
from cloudai.scheduling.task_types import TASK_TYPES

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

#: The rows of every table, in this order.
TYPES: tuple[str, ...] = tuple(map(str, TASK_TYPES))
_TYPE_INDEX = {kind: index for index, kind in enumerate(TYPES)}

#: A runtime may be so much longer than the task was there, seconds: two clocks never agree.
_CLOCKS_APART_S = 5.0
#: A family with so many successes is told apart from the rest of its type.
_FAMILY_RECORDS = 10
#: No feature of a placement is larger: a ratio is at most 1 where a task fits, a load rarely above 2.
_FEATURE_MAX = 20.0

_UNKNOWN = (math.nan,) * 4


@dataclass(frozen=True)
class Columns:
    """Attempts that ran on a node; arrays of shape (n,) but for `features`, shape (n, 4)."""

    #: Names of the nodes, sorted; `node` points into them.
    nodes: tuple[str, ...]
    #: Row of TYPES.
    kind: IntArray
    node: IntArray
    #: The task ended with this attempt, and nobody cancelled it: it counts for the SLA.
    counted: BoolArray
    #: Counted, and not successful by its deadline.
    violation: BoolArray
    #: Succeeded with a runtime that can be learned from.
    success: BoolArray
    #: Seconds of work; NaN where it cannot be used.
    runtime: FloatArray
    #: Seconds with a node load above 1, at most `runtime`; 0 where not recorded.
    overload: FloatArray
    #: cpu, memory and gpu ratio and load at the placement; NaN where not recorded.
    features: FloatArray
    #: Jobs that run alike: the type, or the family in it where it has enough records; numbers from 0.
    level: IntArray
    #: Records, or parts of them, that were left out: how many, by reason.
    skipped: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, int]:
        """Of a table type x node."""
        return len(TYPES), len(self.nodes)

    @cached_property
    def pair(self) -> IntArray:
        """Place of each attempt's (type, node) in a flattened table."""
        return self.kind * len(self.nodes) + self.node

    @cached_property
    def group(self) -> IntArray:
        """A number for each attempt's (level, node): what runs alike on one node."""
        return self.level * len(self.nodes) + self.node

    def table(self, values: FloatArray | None = None, where: BoolArray | None = None) -> FloatArray:
        """Sums of `values` (None: counts) over the attempts `where`, by type and node."""
        chosen = slice(None) if where is None else where
        size = self.shape[0] * self.shape[1]
        weights = None if values is None else values[chosen]
        return np.bincount(self.pair[chosen], weights, minlength=size).astype(np.float64).reshape(self.shape)

    @cached_property
    def successes_by_type(self) -> dict[str, int]:
        """How many completions there are to learn from."""
        return dict(zip(TYPES, map(int, self.table(where=self.success).sum(axis=1)), strict=True))


def columns_of(history: Sequence[TaskHistory]) -> Columns:
    """Columns of the attempts that ran on a node. Pure; never raises for what a record holds."""
    skipped: Counter[str] = Counter()
    sound = [record for record in history if record.worker_id and _is_sound(record, skipped)]
    nodes = tuple(sorted({record.worker_id for record in sound}))
    index = {name: place for place, name in enumerate(nodes)}
    runtime = np.array([_runtime(record, skipped) for record in sound], dtype=np.float64)
    features = np.array([_features(record, skipped) for record in sound], dtype=np.float64).reshape(-1, 4)
    counted = np.array([r.final and r.outcome != names.CANCELLED for r in sound], dtype=np.bool_)
    succeeded = np.array([r.outcome == names.SUCCEEDED for r in sound], dtype=np.bool_)
    overload = np.array([_finite_or_0(record.overload_time) for record in sound], dtype=np.float64)
    success = succeeded & np.isfinite(runtime)
    return Columns(
        nodes=nodes,
        kind=np.array([_TYPE_INDEX[record.task_type] for record in sound], dtype=np.int64),
        node=np.array([index[record.worker_id] for record in sound], dtype=np.int64),
        counted=counted,
        violation=counted & ~np.array([record.sla_success for record in sound], dtype=np.bool_),
        success=success,
        runtime=runtime,
        overload=np.minimum(overload, np.nan_to_num(runtime)),
        features=features,
        level=_levels(sound, success),
        skipped=dict(skipped),
    )


def _levels(records: Sequence[TaskHistory], success: BoolArray) -> IntArray:
    named = [(record.task_type, record.family) for record in records]
    counts = Counter(key for key, there in zip(named, success, strict=True) if there and key[1])
    told_apart = sorted(key for key, count in counts.items() if count >= _FAMILY_RECORDS)
    numbers = {key: len(TYPES) + place for place, key in enumerate(told_apart)}
    return np.array([numbers.get(key, _TYPE_INDEX[key[0]]) for key in named], dtype=np.int64)


def _is_sound(record: TaskHistory, skipped: Counter[str]) -> bool:
    if record.task_type not in _TYPE_INDEX:
        skipped["an unknown task type"] += 1
        return False
    if not (math.isfinite(record.arrival_time) and math.isfinite(record.actual_finish)):
        skipped["a time that is not finite"] += 1
        return False
    return True


def _runtime(record: TaskHistory, skipped: Counter[str]) -> float:
    """Seconds of work, NaN if they cannot be learned from; told only where a success lacks them."""
    runtime = record.actual_runtime
    reason = ""
    if runtime is None:
        reason = "a success without a runtime"
    elif not (math.isfinite(runtime) and runtime > 0):
        reason = "a runtime that is not finite and positive"
    elif runtime > record.actual_finish - record.arrival_time + _CLOCKS_APART_S:
        reason = "a runtime longer than the task was there: a clock jumped"
    if not reason:
        assert runtime is not None
        return runtime
    if record.outcome == names.SUCCEEDED:
        skipped[reason] += 1
    return math.nan


def _features(record: TaskHistory, skipped: Counter[str]) -> tuple[float, ...]:
    given = record.features
    if given is None:
        return _UNKNOWN
    if not all(math.isfinite(value) and 0 <= value <= _FEATURE_MAX for value in given):
        skipped["placement features out of range"] += 1
        return _UNKNOWN
    return given


def _finite_or_0(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) and value > 0 else 0.0
