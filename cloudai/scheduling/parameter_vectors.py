"""The parameters spread over the rows of a fleet snapshot (spec sections 5 and 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from cloudai.scheduling.formula import placement_offset
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.snapshot import FleetSnapshot, FloatArray
from cloudai.scheduling.task_types import TaskType


@dataclass(frozen=True, slots=True)
class TypeVectors:
    """What the parameters say of one type on each node; shape (n,), or None where nothing was learned."""

    #: Affinity[type][j]; a missing pair takes the mean of its type's entries; None: 0 everywhere
    affinity: FloatArray | None
    #: Penalty[j]; None: 0 everywhere
    penalty: FloatArray | None
    #: s_cj; None: 1 everywhere
    speed: FloatArray | None
    #: the largest s_cj
    slowest: float
    #: Penalty[j] - Affinity[type][j], what the final risk adds; None: 0 everywhere
    offset: FloatArray | None
    #: b_c
    base: float


class ParameterVectors:
    """Keeps the vectors of each type while the parameters and the rows of the snapshot stay the same."""

    def __init__(self) -> None:
        self._parameters: GAParams | None = None
        self._snapshot: FleetSnapshot | None = None
        self._membership = -1
        self._by_type: dict[TaskType, TypeVectors] = {}

    def of(self, task_type: TaskType, parameters: GAParams, snapshot: FleetSnapshot) -> TypeVectors:
        """Vectors of one type over the snapshot's rows."""
        if (
            parameters is not self._parameters
            or snapshot is not self._snapshot
            or snapshot.membership != self._membership
        ):
            self._parameters, self._snapshot = parameters, snapshot
            self._membership = snapshot.membership
            self._by_type.clear()
        vectors = self._by_type.get(task_type)
        if vectors is None:
            vectors = self._by_type[task_type] = type_vectors(task_type, parameters, snapshot)
        return vectors


def type_vectors(task_type: TaskType, parameters: GAParams, snapshot: FleetSnapshot) -> TypeVectors:
    """Spread the parameters of one type over the rows of the snapshot."""
    scores = parameters.affinity.get(task_type, {})
    affinity = _over_rows(scores, snapshot, fmean(scores.values()) if scores else 0.0)
    penalty = _over_rows(parameters.penalty, snapshot, 0.0)
    offset = None
    if affinity is not None or penalty is not None:
        offset = placement_offset(0.0 if affinity is None else affinity, 0.0 if penalty is None else penalty)
    speed = _over_rows(parameters.speed.get(task_type, {}), snapshot, 1.0)
    return TypeVectors(
        affinity=affinity,
        penalty=penalty,
        speed=speed,
        slowest=1.0 if speed is None else float(speed.max(initial=0.0)),
        offset=np.asarray(offset) if offset is not None else None,
        base=parameters.base.get(task_type, 1.0),
    )


def _over_rows(values: Mapping[str, float], snapshot: FleetSnapshot, missing: float) -> FloatArray | None:
    if not values:
        return None
    return np.array([values.get(name, missing) for name in snapshot.names], dtype=np.float64)
