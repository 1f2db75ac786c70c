"""GAParams spread over a fleet's rows: the vector of genes that the compiled loop reads, and the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from cloudai.scheduling.parameters import GENES, GAParams
from cloudai.scheduling.task_types import TASK_TYPES

from .workload import Fleet, Floats


@dataclass(frozen=True, eq=False)
class ReplayParameters:
    """One candidate's parameters over one fleet."""

    #: (len(GENES),) in the order of GENES
    genes: Floats
    #: (6, n) affinity; a missing pair has the mean of its type's entries
    affinity: Floats
    #: (n,) penalty
    penalty: Floats
    #: (6, n) s_cj, the prior where speeds are learned
    speed: Floats
    #: (6,) b_c
    base: Floats

    @classmethod
    def of(cls, parameters: GAParams, fleet: Fleet) -> ReplayParameters:
        """Spread the parameters over the rows of the fleet, as the router does over its snapshot."""
        names = fleet.names

        def table(rows: Mapping[str, Mapping[str, float]], missing: float | None) -> Floats:
            made = np.empty((len(TASK_TYPES), len(names)))
            for at, kind in enumerate(TASK_TYPES):
                row = rows.get(kind, {})
                other = missing if missing is not None else fmean(row.values()) if row else 0.0
                made[at] = [row.get(name, other) for name in names]
            return made

        return cls(
            genes=np.array([getattr(parameters, name) for name in GENES], dtype=np.float64),
            affinity=table(parameters.affinity, None),
            penalty=np.array([parameters.penalty.get(name, 0.0) for name in names], dtype=np.float64),
            speed=table(parameters.speed, 1.0),
            base=np.array([parameters.base.get(kind, 1.0) for kind in TASK_TYPES], dtype=np.float64),
        )
