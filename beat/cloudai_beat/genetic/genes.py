"""What the search may change, within which bounds, and how a candidate becomes parameters (spec section 7).

A genome is a vector with one number in [0, 1] for each gene: its place between the bounds, by ratio where only ratios
matter. The fitness weights w1..w4 are the operator's and no genes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

import numpy as np
from numpy.typing import NDArray

from cloudai.scheduling.parameters import GAParams

Floats = NDArray[np.float64]

#: The gene that scales all four theta; regression owns theta itself.
THETA_FACTOR = "theta_factor"
#: Bounds of the theta factor, over all epochs since the regression's own.
THETA_FACTOR_RANGE = (0.5, 2.0)

#: How far one epoch may move a gene: this part of the way between its bounds.
CAP = 0.15


@dataclass(frozen=True, slots=True)
class Gene:
    """One number that evolves."""

    name: str
    low: float
    high: float
    #: only ratios matter; `low` stands for everything below it
    by_ratio: bool = False

    def place(self, value: float) -> float:
        """Where a value stands between the bounds, 0..1."""
        value = min(max(value, self.low), self.high)
        if self.by_ratio:
            return log(value / self.low) / log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def value(self, place: float) -> float:
        """The value at a place."""
        place = min(max(float(place), 0.0), 1.0)
        if self.by_ratio:
            return float(self.low * (self.high / self.low) ** place)
        return float(self.low + place * (self.high - self.low))


#: Genes of the score.
SCORE_GENES: tuple[Gene, ...] = (
    Gene(THETA_FACTOR, *THETA_FACTOR_RANGE, by_ratio=True),
    Gene("alpha", 0.1, 1000.0, by_ratio=True),
    Gene("beta", 0.01, 100.0, by_ratio=True),
    Gene("a1", 0.05, 10.0, by_ratio=True),
    Gene("a2", 0.05, 10.0, by_ratio=True),
    Gene("a3", 0.05, 10.0, by_ratio=True),
    Gene("g1", 0.05, 10.0, by_ratio=True),
    Gene("g2", 0.05, 10.0, by_ratio=True),
    Gene("g3", 0.05, 10.0, by_ratio=True),
)
#: Genes of the dispatch order (scheduling/dispatch_order.py).
ORDER_GENES: tuple[Gene, ...] = (
    Gene("order_margin", 0.25, 2.0),
    Gene("order_runtime", -2.0, 6.0),
    Gene("order_lateness", 0.0, 1.0),
    Gene("order_caution", 0.0, 10.0),
    Gene("order_safety", 0.8, 1.8),
)

GENES: tuple[Gene, ...] = (*SCORE_GENES, *ORDER_GENES)

#: Orderings that hold for the defaults: the first is larger than the second (spec section 6).
ORDERINGS: tuple[tuple[str, str], ...] = (("a2", "a1"), ("a1", "a3"), ("g1", "g2"), ("g2", "g3"))


@dataclass(frozen=True)
class GeneSpace:
    """The genes of one search, around the parameters in force."""

    genes: tuple[Gene, ...]
    centre: GAParams
    #: places of the centre, shape (g,)
    start: Floats
    #: bounds of a place, shape (g,): the whole range, or what the cap leaves of it
    low: Floats
    high: Floats

    @classmethod
    def around(
        cls,
        centre: GAParams,
        *,
        genes: Sequence[Gene] = GENES,
        cap: float | None = CAP,
        theta_factor: float = 1.0,
    ) -> GeneSpace:
        """Make the space around `centre`.

        `cap` is how far a gene may move, of the way between its bounds; None: anywhere. `theta_factor` is what earlier
        searches have scaled theta by: the bounds hold for all of it.
        """
        known = tuple(_widened(gene, centre) for gene in genes)
        if any(gene.name == THETA_FACTOR for gene in known):
            left = [bound / theta_factor for bound in THETA_FACTOR_RANGE]
            factor = Gene(THETA_FACTOR, min(left[0], 1.0), max(left[1], 1.0), by_ratio=True)
            known = tuple(factor if gene.name == THETA_FACTOR else gene for gene in known)
        start = np.array([gene.place(_value(gene, centre)) for gene in known])
        reach = 1.0 if cap is None else cap
        return cls(known, centre, start, np.maximum(start - reach, 0.0), np.minimum(start + reach, 1.0))

    def values(self, genome: Floats) -> dict[str, float]:
        """Value of each gene by its name, to four digits; a gene that did not move keeps its exact value."""
        return {
            gene.name: _value(gene, self.centre) if at == begin else _rounded(gene.value(at))
            for gene, at, begin in zip(self.genes, genome, self.start, strict=True)
        }

    def parameters(self, genome: Floats) -> GAParams:
        """The centre with these genes; the tables stay as they are."""
        values = self.values(genome)
        factor = values.pop(THETA_FACTOR, 1.0)
        if factor != 1.0:
            for name in ("theta1", "theta2", "theta3", "theta4"):
                values[name] = _rounded(getattr(self.centre, name) * factor)
        return replace(self.centre, **values)  # type: ignore[arg-type]  # only numbers are genes

    def disorder(self, genome: Floats) -> float:
        """How far the orderings of spec section 6 are broken: the sum of the relative excess, 0 where all hold."""
        return disorder(self.values(genome))


def disorder(values: Mapping[str, float]) -> float:
    """As GeneSpace.disorder, for values by name; a missing one breaks nothing."""
    broken = 0.0
    for larger, smaller in ORDERINGS:
        if larger in values and smaller in values:
            total = values[larger] + values[smaller]
            broken += max(0.0, values[smaller] - values[larger]) / total if total > 0 else 0.0
    return broken


def _value(gene: Gene, parameters: GAParams) -> float:
    return 1.0 if gene.name == THETA_FACTOR else float(getattr(parameters, gene.name))


def _widened(gene: Gene, centre: GAParams) -> Gene:
    """The gene with bounds that hold what somebody has set by hand."""
    value = _value(gene, centre)
    low, high = gene.low, max(gene.high, value)
    if value < low:
        low = max(value, 1e-3 * low) if gene.by_ratio else value
    return replace(gene, low=low, high=high)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
