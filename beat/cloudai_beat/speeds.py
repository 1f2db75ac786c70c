"""The speed of each (type, node) pair, drawn towards its node's where there are few records (spec sections 5 and 7).

    log runtime / (1 + theta . x) = mu_c + nu_j + delta_cj + noise,        s_cj = exp(nu_j + delta_cj)

mu is the type's, nu the node's, delta what is special to the pair. nu and delta are expected around 0 within a spread
that is known beforehand, so the fewer and the noisier the records, the closer a factor stays to its node's, and a
node's to 1. The reference is the (geometric) mean node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudai_beat.columns import TYPES, Columns, FloatArray
from cloudai_beat.contention import LEAST_OF_PAIR

#: Spread of the logarithm beforehand: nodes of a fleet differ by 4, a type's own factor on a node by 1.3.
NODE_SD = 0.7
PAIR_SD = 0.25
#: Least scatter that is believed, relative.
_NOISE_MIN = 0.01
_ROUNDS = 300
_CONVERGED = 1e-7
#: Bounds of what is published.
FACTOR_MIN, FACTOR_MAX = 0.02, 50.0


@dataclass(frozen=True, slots=True)
class Speeds:
    """What was found."""

    #: Type -> node -> s_cj, of every node with enough records, for types that it never ran too.
    factors: dict[str, dict[str, float]]
    #: Nodes with too few records, whose factors are not known.
    unknown: tuple[str, ...]
    #: Scatter of the logarithm within a pair.
    noise: float


def fit_speeds(columns: Columns, stretched: FloatArray) -> Speeds:
    """Speed factors from the successes; `stretched` is 1 + theta . x of each attempt (contention.stretch)."""
    success = columns.success
    rows, nodes = columns.shape
    counts = columns.table(where=success)
    of_node = counts.sum(axis=0)
    enough = of_node >= LEAST_OF_PAIR
    unknown = tuple(name for name, there in zip(columns.nodes, enough, strict=True) if not there)
    if not enough.any():
        return Speeds({kind: {} for kind in TYPES}, unknown, 0.0)
    logs = np.log(np.where(success, columns.runtime, 1.0) / stretched)
    sums = columns.table(logs, success)
    means = sums / np.maximum(counts, 1)
    scatter = columns.table((logs - means.ravel()[columns.pair]) ** 2, success).sum()
    freedom = max(1.0, counts.sum() - np.count_nonzero(counts))
    noise = max(_NOISE_MIN, float(np.sqrt(scatter / freedom)))
    # How many records weigh as much as what is known beforehand; a few that agree by accident must not decide.
    k_node, k_pair = (noise / NODE_SD) ** 2, max(LEAST_OF_PAIR, (noise / PAIR_SD) ** 2)
    mu, nu, delta = np.zeros(rows), np.zeros(nodes), np.zeros((rows, nodes))
    of_type = np.maximum(counts.sum(axis=1), 1)
    for _ in range(_ROUNDS):
        before = nu + delta
        mu = (sums - counts * (nu + delta)).sum(axis=1) / of_type
        nu = (sums - counts * (mu[:, None] + delta)).sum(axis=0) / (of_node + k_node)
        # The reference is the mean node.
        nu -= nu[enough].mean()
        delta = (sums - counts * (mu[:, None] + nu)) / (counts + k_pair)
        if np.max(np.abs(nu + delta - before)) < _CONVERGED:
            break
    factors = np.clip(np.exp(nu + delta), FACTOR_MIN, FACTOR_MAX)
    table = {
        kind: {name: float(factors[row, j]) for j, name in enumerate(columns.nodes) if enough[j]}
        for row, kind in enumerate(TYPES)
    }
    return Speeds(table, unknown, noise)
