"""The guard tells a gain from noise; fitness is that of the specification."""

from __future__ import annotations

import numpy as np
import pytest

from cloudai.settings import Settings
from cloudai_beat.genetic.fitness import Terms, Weights, terms
from cloudai_beat.genetic.guard import block_gains, judge


def test_a_clear_gain_passes_and_a_loss_or_nothing_does_not() -> None:
    chance = np.random.default_rng(1)
    noise = chance.normal(0.0, 0.1, 2000)
    assert judge(block_gains(noise + 0.05), 1).better
    assert not judge(block_gains(noise - 0.05), 1).better
    assert not judge(block_gains(np.zeros(2000)), 1).better


def test_noise_alone_seldom_passes() -> None:
    chance = np.random.default_rng(2)
    passed = sum(judge(block_gains(chance.normal(0.0, 1.0, 480)), seed).better for seed in range(300))
    assert passed <= 30


def test_a_gain_in_one_stretch_only_does_not_pass() -> None:
    gains = np.zeros(2400)
    gains[:100] = 0.5
    assert judge(block_gains(gains), 3).gain > 0
    assert not judge(block_gains(gains), 3).better


@pytest.mark.parametrize("gains", [np.zeros(0), np.full(3, 0.5), np.array([0.1, np.nan] * 12)])
def test_too_little_or_broken_work_never_passes(gains: np.ndarray) -> None:
    assert not judge(block_gains(gains), 5).better


def test_the_same_seed_gives_the_same_bound() -> None:
    gains = np.random.default_rng(6).normal(0.1, 1.0, 500)
    assert judge(block_gains(gains), 7) == judge(block_gains(gains), 7)


def test_the_terms_are_those_of_the_replayed_work() -> None:
    found = terms(
        missed=[True, False, False, False],
        # Two nodes; the second has no GPU and is half used, the first a quarter.
        used=np.array([[10.0, 20.0], [0.0, 40.0], [0.5, 0.0], [0.0, 0.0]]),
        total=np.array([[40.0, 40.0], [80.0, 80.0], [1.0, 0.0], [0.0, 0.0]]),
        energy=np.array([30.0, 10.0]),
        energy_full=np.array([60.0, 40.0]),
        overload_s=np.array([20.0, 0.0]),
        span_s=100.0,
    )
    assert found == Terms(0.75, pytest.approx((0.25 + 0.5) / 2), pytest.approx(0.375), pytest.approx(0.1))
    assert found.fitness(Weights()) == pytest.approx(0.55 * 0.75 + 0.2 * 0.375 - 0.125 * 0.375 - 0.125 * 0.1)


def test_nothing_replayed_is_no_success() -> None:
    empty = np.zeros((4, 0))
    none = empty[0]
    found = terms(missed=[], used=empty, total=empty, energy=none, energy_full=none, overload_s=none, span_s=0)
    assert found.fitness(Weights()) == 0.0


def test_the_weights_are_the_operators_and_only_their_proportions_count() -> None:
    assert Weights.of(Settings().optimiser) == Weights()
    mine = {"weight_sla": 1, "weight_utilisation": 0, "weight_energy": 0.25, "weight_overload": 0}
    assert Weights.of(Settings.load(optimiser=mine).optimiser) == Weights(0.8, 0.0, 0.2, 0.0)
