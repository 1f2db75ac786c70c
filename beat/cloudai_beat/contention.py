"""Theta and base: how a busy node stretches a task, by least squares on successes (spec section 7).

    runtime = m * (1 + theta . x)        x = cpu, memory and gpu ratio and load at the placement

m, the uncontended runtime, is another for every (type, node) pair, and for families that are large enough, so each has
an intercept of its own: what tells about theta is how runtimes differ within a pair. Fast and slow nodes thus never
pass for idle and busy ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloudai_beat.columns import TYPES, Columns, FloatArray

#: Fewest completions in all, and of a pair, from which anything is learned.
LEAST_RECORDS = 30
LEAST_OF_PAIR = 5

#: How far theta may be expected from its prior; a few hundred records outweigh it.
PRIOR_SD = 0.25

_ROUNDS = 100
_CONVERGED = 1e-8
#: Upper bound of what is published (spec section 6 allows 1000).
_THETA_MAX = 100.0


@dataclass(frozen=True, slots=True)
class ThetaFit:
    """What the regression found."""

    #: theta1..theta4.
    theta: tuple[float, float, float, float]
    #: Completions and pairs that it learned from; 0: the prior was kept.
    records: int
    pairs: int
    #: Scatter of the relative runtimes that theta does not explain.
    residual: float
    #: Why it was kept; "": it was fitted.
    kept: str = ""


def load_library() -> None:
    """Import scikit-learn, which takes seconds: not with this module, for commands that only look at epochs, and not in
    the first epoch of a control process either.
    """
    import sklearn.linear_model  # noqa: F401


def fit_theta(columns: Columns, prior: Sequence[float]) -> ThetaFit:
    """Fit theta >= 0 with scikit-learn, drawn towards `prior` where the records say little.

    A feature that never varies within a pair (no GPU task, say) keeps its prior.
    """
    from sklearn.linear_model import LinearRegression

    known = np.asarray(prior, dtype=np.float64)
    usable = columns.success & np.isfinite(columns.features).all(axis=1)
    counts = np.bincount(columns.group[usable], minlength=int(columns.group.max(initial=0)) + 1)
    usable &= counts[columns.group] >= LEAST_OF_PAIR
    records = int(usable.sum())
    if records < LEAST_RECORDS:
        why = f"{records} completions in pairs of at least {LEAST_OF_PAIR}; {LEAST_RECORDS} are needed"
        return ThetaFit(_four(known), 0, 0, 0.0, kept=why)
    _, group, size = np.unique(columns.group[usable], return_inverse=True, return_counts=True)
    x = columns.features[usable]
    runtime = columns.runtime[usable]
    # Relative to the mean of its pair: type and speed are out, and every pair weighs by its records.
    y = runtime / _means(runtime, group, size)[group]
    x_mean = np.stack([_means(column, group, size) for column in x.T], axis=1)
    x_within, y_within = x - x_mean[group], y - 1.0
    freedom = max(1, records - len(size) - 4)
    theta = known
    residual = 0.0
    for _ in range(_ROUNDS):
        # y = b * (1 + theta . x) with mean 1, so the pair's intercept is b = 1 / (1 + theta . mean x).
        intercept = 1.0 / (1.0 + x_mean @ theta)
        slopes = x_within * intercept[group, None]
        residual = float(np.sum((y_within - slopes @ theta) ** 2) / freedom)
        weight = np.sqrt(residual) / PRIOR_SD
        fit = LinearRegression(fit_intercept=False, positive=True)
        fit.fit(np.vstack([slopes, weight * np.eye(4)]), np.concatenate([y_within, weight * known]))
        found = np.minimum(np.nan_to_num(fit.coef_), _THETA_MAX)
        done = bool(np.max(np.abs(found - theta)) < _CONVERGED)
        theta = found
        if done:
            break
    # Without any noise the prior has no weight left, and a feature that never varies would come out as 0.
    theta = np.where(np.ptp(x_within, axis=0) > 0, theta, known)
    return ThetaFit(_four(theta), records, len(size), residual**0.5)


def base_factors(columns: Columns, theta: Sequence[float]) -> dict[str, float]:
    """b_c: uncontended runtime over tau, of the types with enough records.

    Tau is the mean of m * (1 + theta . x), so b is one over the mean of the bracket.
    """
    usable = columns.success & np.isfinite(columns.features).all(axis=1)
    kind = columns.kind[usable]
    bracket = 1.0 + columns.features[usable] @ np.asarray(theta, dtype=np.float64)
    counts = np.bincount(kind, minlength=len(TYPES))
    sums = np.bincount(kind, bracket, minlength=len(TYPES))
    return {
        name: float(count / total)
        for name, count, total in zip(TYPES, counts, sums, strict=True)
        if count >= LEAST_OF_PAIR
    }


def stretch(columns: Columns, theta: Sequence[float]) -> FloatArray:
    """1 + theta . x of each attempt; where x is not known, the mean of its type, else 1."""
    bracket: FloatArray = 1.0 + columns.features @ np.asarray(theta, dtype=np.float64)
    known = np.isfinite(bracket)
    counts = np.bincount(columns.kind[known], minlength=len(TYPES))
    sums = np.bincount(columns.kind[known], bracket[known], minlength=len(TYPES))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)
    return np.where(known, bracket, means[columns.kind])


def _means(values: FloatArray, group: np.ndarray, size: np.ndarray) -> FloatArray:
    return np.asarray(np.bincount(group, values) / size, dtype=np.float64)


def _four(theta: FloatArray) -> tuple[float, float, float, float]:
    one, two, three, four = (float(value) for value in theta)
    return one, two, three, four
