"""The speed of each (type, node) pair, drawn towards its node's where there are few records (spec sections 5 and 7).

    log runtime / (1 + theta . x) = mu_f + nu_j + delta_cj + noise,        s_cj = exp(nu_j + delta_cj)

mu is the type's, or the family's where it has enough records; nu the node's, delta what is special to the pair of type
and node. nu and delta are expected around 0 within a spread that is known beforehand, so the fewer and the noisier the
records, the closer a factor stays to its node's, and a node's to 1. The reference is the (geometric) mean node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudai_beat.columns import TYPES, Columns, FloatArray, IntArray
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

    #: Type -> node -> s_cj, of every node with a success, for types that it never ran too.
    factors: dict[str, dict[str, float]]
    #: Nodes without any success, whose factors are not known.
    unknown: tuple[str, ...]
    #: Scatter of the logarithm among jobs that run alike.
    noise: float


def fit_speeds(columns: Columns, stretched: FloatArray) -> Speeds:
    """Speed factors from the successes; `stretched` is 1 + theta . x of each attempt (contention.stretch)."""
    chosen = columns.success
    rows, nodes = columns.shape
    counts = columns.table(where=chosen)
    of_node = counts.sum(axis=0)
    seen, enough = of_node > 0, of_node >= LEAST_OF_PAIR
    unknown = tuple(name for name, there in zip(columns.nodes, seen, strict=True) if not there)
    if not seen.any():
        return Speeds({kind: {} for kind in TYPES}, unknown, 0.0)
    # The reference is the mean of the nodes that are known well.
    reference = enough if enough.any() else seen
    level, node, pair, group = (
        array[chosen] for array in (columns.level, columns.node, columns.pair, columns.group)
    )
    logs = np.log(columns.runtime[chosen] / stretched[chosen])
    noise = max(_NOISE_MIN, _scatter(logs, group))
    # How many records weigh as much as what is known beforehand; a few that agree by accident must not decide.
    k_node, k_pair = max(1.0, (noise / NODE_SD) ** 2), max(LEAST_OF_PAIR, (noise / PAIR_SD) ** 2)
    of_level = np.maximum(np.bincount(level), 1)
    nu, delta = np.zeros(nodes), np.zeros(rows * nodes)
    for _ in range(_ROUNDS):
        before = nu[node] + delta[pair]
        mu = (np.bincount(level, logs - before) / of_level)[level]
        nu = np.bincount(node, logs - mu - delta[pair], minlength=nodes) / (of_node + k_node)
        nu -= nu[reference].mean()
        delta = np.bincount(pair, logs - mu - nu[node], minlength=rows * nodes) / (counts.ravel() + k_pair)
        if np.max(np.abs(nu[node] + delta[pair] - before)) < _CONVERGED:
            break
    factors = np.clip(np.exp(nu + delta.reshape(rows, nodes)), FACTOR_MIN, FACTOR_MAX)
    table = {
        kind: {name: float(factors[row, j]) for j, name in enumerate(columns.nodes) if seen[j]}
        for row, kind in enumerate(TYPES)
    }
    return Speeds(table, unknown, noise)


def _scatter(logs: FloatArray, group: IntArray) -> float:
    """Standard deviation within a group."""
    _, place, size = np.unique(group, return_inverse=True, return_counts=True)
    within = logs - (np.bincount(place, logs) / size)[place]
    return float(np.sqrt(np.sum(within**2) / max(1, len(logs) - len(size))))
