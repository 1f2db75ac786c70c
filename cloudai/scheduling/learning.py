"""Learning a runtime from one completion after the other (spec section 2): the rule, as plain values.

The state in Redis is learned by the same rule inside the script that ends an attempt (state/lua/finish.lua), because
that must be one step; tests hold the two together, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, sqrt

from cloudai.scheduling.formula import learned_tau, learned_variance

#: Bounds of tau, and of what a sample counts as at most and at least (s).
TAU_MIN_S = 0.001
TAU_MAX_S = 1e6
#: A sample that is off by no more than this part of tau is no outlier, however alike the samples were.
ALIKE = 0.1
#: An adaptive rate goes down to this part of the given one.
LEAST_RATE = 0.25
#: Completions after which the time that tasks are given may foretell their runtimes.
SHARE_AFTER = 30
#: It does so where its relative variance is at most this part of tau's: of two that say the same, rounding must not
#: choose.
SHARE_VARIANCE = 0.9


@dataclass(frozen=True, slots=True)
class LearningRule:
    """How a completion moves the expected runtime."""

    #: lambda, the weight of one sample
    rate: float = 0.2
    #: lambda of single task types, in place of `rate`
    rate_by_type: Mapping[str, float] = field(default_factory=dict)
    #: lambda is divided by 1 + (sigma / tau)^2: of a noisy type, one sample says less
    adaptive: bool = False
    #: samples further than so many sigma from tau are outliers ...
    outlier_sigma: float = 3.0
    #: ... once so many samples were learned
    outlier_after: int = 20
    #: so many outliers in a row on the same side are a lasting shift, which is followed
    follow_after: int = 5

    def rate_of(self, task_type: str) -> float:
        """Lambda of a type."""
        return self.rate_by_type.get(task_type, self.rate)


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of the runtime of a type, or of a family of jobs."""

    #: expected runtime, s
    tau: float
    #: running variance around tau, s^2
    variance: float = 0.0
    #: completions learned from
    samples: int = 0
    #: outliers in a row, above 0 on the slow side, below on the fast one
    run: int = 0
    #: outliers that were not learned from
    rejected: int = 0

    @property
    def sigma(self) -> float:
        """Spread of the runtimes, s."""
        return sqrt(self.variance)


def learn(known: Learned, sample_s: float, rule: LearningRule, rate: float, *, from_first: bool = False) -> Learned:
    """What is known after one more completion; `sample_s` is its runtime over the speed of its pair, in s.

    tau_new = rate * sample + (1 - rate) * tau. With `from_first` there was no value to start from: the first samples
    count as their mean. An outlier changes nothing but the counts.
    """
    tau, variance, samples, run = after_sample(
        known.tau, known.variance, known.samples, known.run, sample_s, rate, rule.outlier_sigma, rule.outlier_after,
        rule.follow_after, rule.adaptive, from_first,
    )  # fmt: skip
    return Learned(tau, variance, samples, run, known.rejected + (samples == known.samples))


def after_sample(
    tau: float,
    variance: float,
    samples: int,
    run: int,
    sample_s: float,
    rate: float,
    outlier_sigma: float,
    outlier_after: int,
    follow_after: int,
    adaptive: bool,
    from_first: bool,
) -> tuple[float, float, int, int]:
    """Tau, variance, samples and run (see Learned) after one more completion; as many samples: it was an outlier.

    The rule of `learn`, as plain arithmetic for numbers: the replay compiles it.
    """
    x = min(max(sample_s, TAU_MIN_S), TAU_MAX_S)
    d = x - tau
    outliers = 0
    if samples >= outlier_after and abs(d) > max(outlier_sigma * sqrt(variance), ALIKE * tau):
        side = 1 if d > 0 else -1
        outliers = run + side if run * side > 0 else side
        if abs(outliers) < follow_after:
            return tau, variance, samples, outliers
    if adaptive and samples >= outlier_after:
        rate = max(rate / (1 + variance / (tau * tau)), LEAST_RATE * rate)
    if from_first:
        rate = max(rate, 1 / (samples + 1))
    new = learned_tau(rate, x, tau)
    return (
        min(max(new, TAU_MIN_S), TAU_MAX_S),
        learned_variance(rate, x, tau, variance),
        samples + 1,
        outliers,
    )


def foretells(share: float, share_variance: float, share_samples: float, tau: float, variance: float) -> bool:
    """Whether the time from arrival to deadline foretells the runtimes of a type better than tau does.

    `share`, `share_variance`, `share_samples`: what was learned of runtime over that time; `tau`, `variance`: of the
    runtime. Decided by the relative variance, so by what completions have shown. Plain arithmetic, for numbers.
    """
    return share_samples >= SHARE_AFTER and share_variance * (tau * tau) < SHARE_VARIANCE * variance * (share * share)


def expected_runtime(known: Learned, share: Learned | None, window_s: float) -> float:
    """Expected runtime of a task, s: tau, unless the time that it is given (`window_s`, arrival to deadline) says more.

    `share` is what was learned of runtime over that time for the task's type. Where deadlines follow from tau they say
    no more than tau, so tau counts; where people set them for each job they may say much more than a mean over all.
    """
    if share is None or not 0 < window_s < inf:
        return known.tau
    if foretells(share.tau, share.variance, share.samples, known.tau, known.variance):
        return share.tau * window_s
    return known.tau


def first(sample_s: float) -> Learned:
    """What is known of a family after its first completion."""
    return Learned(min(max(sample_s, TAU_MIN_S), TAU_MAX_S), samples=1)
