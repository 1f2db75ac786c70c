"""Fitness of a candidate: what the replayed work would have come to under it (spec section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloudai.settings import OptimiserSettings
from cloudai_beat.genetic.genes import Floats

#: What broken orderings of the parameters cost (spec section 6: soft constraints), by GeneSpace.disorder.
DISORDER_COST = 0.02


@dataclass(frozen=True, slots=True)
class Weights:
    """w1..w4: the operator's (`optimiser.weight_*`), never evolved."""

    sla: float = 0.55
    utilisation: float = 0.2
    energy: float = 0.125
    overload: float = 0.125

    @classmethod
    def of(cls, settings: OptimiserSettings) -> Weights:
        """What the operator has set, scaled so that they add to 1: the least gain that is worth a change does not
        depend on their size.
        """
        s = settings
        total = s.weight_sla + s.weight_utilisation + s.weight_energy + s.weight_overload
        return cls(
            s.weight_sla / total, s.weight_utilisation / total, s.weight_energy / total, s.weight_overload / total
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """The four terms, each 0..1 or a little above."""

    #: share of the tasks that ended by their deadline
    sla_success: float
    #: mean over nodes, and over the resources that a node has, of used over total
    utilisation: float
    #: mean over nodes of energy over that of the same node fully used
    energy_norm: float
    #: mean over nodes of the time-mean of max(0, L - 1)
    overload_norm: float

    def fitness(self, weights: Weights) -> float:
        """w1*sla_success + w2*utilisation - w3*energy_norm - w4*overload_norm."""
        return (
            weights.sla * self.sla_success
            + weights.utilisation * self.utilisation
            - weights.energy * self.energy_norm
            - weights.overload * self.overload_norm
        )


def terms(
    *,
    missed: Sequence[bool] | Floats,
    used: Floats,
    total: Floats,
    energy: Floats,
    energy_full: Floats,
    overload_s: Floats,
    span_s: float,
) -> Terms:
    """The terms of one replay.

    `missed` (m,); `used` and `total` (r, n) by resource and node, 0 in `total` where a node has none of it; `energy`
    and `energy_full` (n,), the latter of a node that is fully used; `overload_s` (n,), the integral of max(0, L - 1).
    """
    lost = np.asarray(missed, dtype=bool)
    has = np.asarray(total) > 0
    shares = np.divide(used, total, out=np.zeros(np.shape(total)), where=has)
    kinds = has.sum(axis=0)
    by_node = np.divide(shares.sum(axis=0), kinds, out=np.zeros(len(kinds)), where=kinds > 0)
    burnt = np.divide(energy, energy_full, out=np.zeros(len(energy)), where=np.asarray(energy_full) > 0)
    return Terms(
        sla_success=1.0 - float(lost.mean()) if lost.size else 0.0,
        utilisation=float(by_node.mean()) if by_node.size else 0.0,
        energy_norm=float(burnt.mean()) if burnt.size else 0.0,
        overload_norm=float(np.mean(overload_s) / span_s) if span_s > 0 and len(overload_s) else 0.0,
    )
