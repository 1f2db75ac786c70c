"""The genetic algorithm on landscapes whose best place is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cloudai_beat.genetic.evolution import Evolution, GASettings, evolve

Floats = NDArray[np.float64]

GENES = 14
LOW, HIGH, START = np.zeros(GENES), np.ones(GENES), np.full(GENES, 0.5)


class Hill:
    """One peak, its sides uneven, its genes of very different weight, and ripples all over."""

    def __init__(self, seed: int) -> None:
        chance = np.random.default_rng((seed, 99))
        self.peak = chance.uniform(0.1, 0.9, GENES)
        self.weight = np.exp(chance.normal(0.0, 1.0, GENES))
        self.asked = 0

    def __call__(self, genomes: Floats) -> Floats:
        self.asked += len(genomes)
        away = genomes - self.peak
        ripples = 0.02 * (1 - np.cos(25 * away)).sum(axis=1)
        fitness: Floats = -(self.weight * away**2).sum(axis=1) - ripples
        return fitness


def searched(seed: int, settings: GASettings | None = None) -> Evolution:
    return evolve(Hill(seed), START, LOW, HIGH, settings or GASettings(), seed)


def test_it_beats_random_search_with_the_same_number_of_evaluations() -> None:
    gains = []
    for seed in range(12):
        hill = Hill(seed)
        found = evolve(hill, START, LOW, HIGH, GASettings(), seed)
        anywhere = np.random.default_rng(seed).uniform(LOW, HIGH, (hill.asked, GENES))
        gains.append(found.best_fitness - Hill(seed)(anywhere).max())
    assert np.mean(gains) > 0.3
    assert sum(gain > 0 for gain in gains) >= 11


@pytest.mark.parametrize("seed", range(5))
def test_the_best_never_falls_and_the_mean_rises(seed: int) -> None:
    found = searched(seed)
    assert list(found.best_by_generation) == sorted(found.best_by_generation)
    assert found.best_by_generation[-1] == found.best_fitness > found.start_fitness
    assert found.mean_by_generation[-1] > found.mean_by_generation[0]
    assert len(found.best_by_generation) == len(found.mean_by_generation) == 10


def test_the_start_is_in_the_first_generation_so_nothing_worse_is_found() -> None:
    hill = Hill(1)
    found = evolve(hill, hill.peak, LOW, HIGH, GASettings(), 1)
    assert np.array_equal(found.best, hill.peak)
    assert found.start_fitness == found.best_fitness == 0.0


def test_what_else_is_given_is_tried_too() -> None:
    hill = Hill(2)
    found = evolve(hill, START, LOW, HIGH, GASettings(generations=1), 2, hill.peak)
    assert np.array_equal(found.best, hill.peak)


def test_the_same_seed_finds_the_same_and_another_something_else() -> None:
    first, again, other = searched(3), searched(3), searched(4)
    assert np.array_equal(first.best, again.best)
    assert first.best_by_generation == again.best_by_generation
    assert not np.array_equal(first.best, other.best)


def test_every_genome_stays_within_the_bounds() -> None:
    low, high = np.full(GENES, 0.4), np.full(GENES, 0.6)
    seen: list[Floats] = []

    def evaluate(genomes: Floats) -> Floats:
        seen.append(genomes)
        return Hill(5)(genomes)

    evolve(evaluate, START, low, high, GASettings(mutation=1.0), 5)
    everything = np.concatenate(seen)
    assert ((everything >= low) & (everything <= high)).all()


def test_a_fitness_that_is_not_finite_is_the_worst() -> None:
    def evaluate(genomes: Floats) -> Floats:
        fitness: Floats = np.where(genomes[:, 0] > 0.5, np.nan, genomes[:, 0])
        return fitness

    found = evolve(evaluate, START, LOW, HIGH, GASettings(), 6)
    assert found.best[0] <= 0.5
    assert np.isfinite(found.best_fitness)
    nothing = evolve(lambda genomes: np.full(len(genomes), np.nan), START, LOW, HIGH, GASettings(generations=2), 6)
    assert nothing.best_fitness == -np.inf


@pytest.mark.parametrize(
    "settings", [GASettings(4, 3), GASettings(4, 1), GASettings(20, 3, 0.0, 0.0), GASettings(50, 4)]
)
def test_any_size_and_rate_will_do(settings: GASettings) -> None:
    found = searched(7, settings)
    assert found.population.shape == (settings.population, GENES)
    assert found.evaluations == settings.population + (settings.generations - 1) * (settings.population - 2)
    assert list(found.fitness) == sorted(found.fitness, reverse=True)
