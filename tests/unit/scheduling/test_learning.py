"""How tau follows what is measured (spec section 2)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cloudai.scheduling.learning import Learned, LearningRule, expected_runtime, first, learn

RULE = LearningRule()


def taught(known: Learned, samples: Iterable[float], rule: LearningRule = RULE) -> Learned:
    for sample in samples:
        known = learn(known, sample, rule, rule.rate)
    return known


def steady(seconds: float = 10.0) -> Learned:
    """Learned from enough runtimes between 0.9 and 1.1 of so many seconds."""
    return taught(Learned(seconds), [seconds * factor for factor in (0.9, 1.0, 1.1) * 20])


def test_one_sample_is_the_moving_average_of_the_formula() -> None:
    known = learn(Learned(5.0), 10.0, RULE, 0.2)
    assert (known.tau, known.samples, known.rejected) == (6.0, 1, 0)


def test_the_variance_is_that_of_the_samples() -> None:
    known = taught(Learned(10.0), [8.0, 12.0] * 200, LearningRule(rate=0.02))
    assert known.sigma == pytest.approx(2.0, rel=0.05)


def test_nothing_is_an_outlier_before_enough_samples() -> None:
    known = taught(Learned(10.0), [10.0] * (RULE.outlier_after - 1))
    assert learn(known, 1000.0, RULE, 0.2).tau == pytest.approx(208.0)


def test_an_outlier_is_counted_and_changes_nothing_else() -> None:
    known = steady()
    after = learn(known, 100.0, RULE, 0.2)
    assert (after.tau, after.variance, after.samples) == (known.tau, known.variance, known.samples)
    assert after.rejected == known.rejected + 1


def test_alike_runtimes_make_no_outlier_of_one_that_is_a_little_off() -> None:
    known = taught(Learned(10.0), [10.0] * 50)
    assert known.sigma < 1e-3
    assert learn(known, 10.9, RULE, 0.2).rejected == 0
    assert learn(known, 11.1, RULE, 0.2).rejected == 1


@pytest.mark.parametrize("seconds", [100.0, 0.5])
def test_a_lasting_shift_is_followed_to_its_end(seconds: float) -> None:
    known = taught(steady(), [seconds] * 40)
    assert known.rejected == RULE.follow_after - 1
    assert known.tau == pytest.approx(seconds, rel=0.05)


def test_outliers_on_both_sides_are_no_shift() -> None:
    known = steady()
    after = taught(known, [100.0, 0.5] * 20)
    assert after.rejected == known.rejected + 40
    assert after.tau == known.tau


def test_an_ordinary_sample_ends_a_run_of_outliers() -> None:
    known = steady()
    after = taught(known, ([100.0] * 4 + [10.0]) * 10)
    assert after.rejected == known.rejected + 40
    assert after.tau == pytest.approx(10.0, rel=0.1)


def test_tau_stays_within_its_bounds() -> None:
    assert learn(Learned(1e6), 1e300, RULE, 0.2).tau == 1e6
    assert learn(Learned(0.001), 1e-300, RULE, 0.2).tau == 0.001


def test_a_family_begins_with_the_mean_of_its_first_samples() -> None:
    known = first(4.0)
    for sample in (8.0, 6.0):
        known = learn(known, sample, RULE, 0.2, from_first=True)
    assert known.tau == pytest.approx(6.0)
    assert known.samples == 3


def test_an_adaptive_rate_is_lower_for_a_noisy_type_and_has_a_floor() -> None:
    rule = LearningRule(adaptive=True)
    calm, noisy = Learned(10.0, 1.0, 50), Learned(10.0, 100.0, 50)
    wild = Learned(10.0, 1e9, 50)
    steps = [learn(known, 12.0, rule, 0.2).tau - 10.0 for known in (calm, noisy, wild)]
    assert steps == pytest.approx([0.4 / 1.01, 0.2, 0.1])


def test_each_type_may_have_its_own_rate() -> None:
    rule = LearningRule(rate_by_type={"gpu-training": 0.5})
    assert (rule.rate_of("gpu-training"), rule.rate_of("mixed")) == (0.5, 0.2)


VARIED = Learned(50.0, variance=2500.0, samples=100)
HALF = Learned(0.5, variance=0.0025, samples=100)


@pytest.mark.parametrize(
    ("known", "share", "window", "expected"),
    [
        (VARIED, HALF, 20.0, 10.0),
        (VARIED, None, 20.0, 50.0),
        (VARIED, HALF, float("inf"), 50.0),
        (VARIED, HALF, -1.0, 50.0),
        (VARIED, Learned(0.5, variance=0.0025, samples=29), 20.0, 50.0),
        # A little less varied is enough: what foretells better counts.
        (VARIED, Learned(0.5, variance=0.2, samples=100), 20.0, 10.0),
        # As varied as the runtimes themselves: it says no more than they do.
        (VARIED, Learned(0.5, variance=0.25, samples=100), 20.0, 50.0),
        (Learned(50.0, variance=1.0, samples=100), HALF, 20.0, 50.0),
        # Nothing is known of the spread.
        (Learned(50.0), HALF, 20.0, 50.0),
    ],
)
def test_the_time_allowed_counts_where_it_says_more(
    known: Learned, share: Learned | None, window: float, expected: float
) -> None:
    assert expected_runtime(known, share, window) == expected
