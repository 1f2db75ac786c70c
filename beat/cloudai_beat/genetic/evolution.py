"""The genetic algorithm: tournament, crossover, mutation, elitism (spec section 7). It knows nothing of scheduling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cloudai_beat.genetic.genes import Floats

#: Fitness of many genomes, shape (k, g) -> (k,); higher is better. NaN counts as the worst.
Evaluate = Callable[[Floats], Floats]

#: Genomes that go into the next generation as they are.
ELITES = 2
#: Genomes that a parent has to beat.
TOURNAMENT = 3
#: Spread of the first generation around the start, and of mutations in the first and the last generation, as a part of
#: the way between the bounds.
FIRST_SPREAD, MUTATION_FIRST, MUTATION_LAST = 0.3, 0.2, 0.05
#: Share of the first generation that is drawn from all of the space.
ANYWHERE = 0.3


@dataclass(frozen=True, slots=True)
class GASettings:
    """Sizes and rates of one search."""

    population: int = 20
    generations: int = 10
    #: chance that a gene is changed
    mutation: float = 0.1
    #: chance that two candidates are crossed
    crossover: float = 0.7


@dataclass(frozen=True)
class Evolution:
    """What a search has found."""

    #: (g,)
    best: Floats
    best_fitness: float
    #: fitness of the start
    start_fitness: float
    #: by generation, the first included
    best_by_generation: tuple[float, ...]
    mean_by_generation: tuple[float, ...]
    #: genomes that were evaluated
    evaluations: int
    #: (k, g) and (k,): the last generation, best first
    population: Floats
    fitness: Floats


def evolve(
    evaluate: Evaluate, start: Floats, low: Floats, high: Floats, settings: GASettings, seed: int, *others: Floats
) -> Evolution:
    """Search between `low` and `high` (shape (g,)) for the genome of the highest fitness.

    The first generation holds `start`, the `others`, genomes around the start, and some from anywhere. The best of a
    generation is never worse than that of the one before. The same arguments give the same outcome.
    """
    chance = np.random.default_rng(seed)
    population = _first(chance, start, low, high, settings.population, others)
    fitness = _usable(evaluate(population))
    start_fitness = float(fitness[0])
    bests, means, evaluations = [float(fitness.max())], [_mean(fitness)], len(population)
    for generation in range(1, settings.generations):
        order = np.argsort(-fitness, kind="stable")
        elites, known = population[order[:ELITES]], fitness[order[:ELITES]]
        spread = np.interp(generation, [1, max(settings.generations - 1, 2)], [MUTATION_FIRST, MUTATION_LAST])
        children = _children(chance, population, fitness, low, high, settings, float(spread))
        found = _usable(evaluate(children))
        evaluations += len(children)
        population, fitness = np.concatenate([elites, children]), np.concatenate([known, found])
        bests.append(float(fitness.max()))
        means.append(_mean(fitness))
    order = np.argsort(-fitness, kind="stable")
    population, fitness = population[order], fitness[order]
    return Evolution(
        best=population[0],
        best_fitness=float(fitness[0]),
        start_fitness=start_fitness,
        best_by_generation=tuple(bests),
        mean_by_generation=tuple(means),
        evaluations=evaluations,
        population=population,
        fitness=fitness,
    )


def _first(
    chance: np.random.Generator, start: Floats, low: Floats, high: Floats, size: int, others: tuple[Floats, ...]
) -> Floats:
    population = start + chance.normal(0.0, FIRST_SPREAD, (size, len(start))) * (high - low)
    # Of those around the start, each changes some genes only: what is good in the rest stays.
    population = np.where(chance.random(population.shape) < 0.5, population, start)
    anywhere = chance.uniform(low, high, population.shape)
    population[size - int(ANYWHERE * size) :] = anywhere[size - int(ANYWHERE * size) :]
    given = np.array([start, *others])[:size]
    population[: len(given)] = given
    clipped: Floats = np.clip(population, low, high)
    return clipped


def _children(
    chance: np.random.Generator,
    population: Floats,
    fitness: Floats,
    low: Floats,
    high: Floats,
    settings: GASettings,
    spread: float,
) -> Floats:
    count, genes = len(population) - ELITES, population.shape[1]
    mothers, fathers = population[_winners(chance, fitness, count)], population[_winners(chance, fitness, count)]
    crossed = chance.random((count, 1)) < settings.crossover
    # Each gene lies somewhere between the parents', or a little beyond.
    share = chance.uniform(-0.25, 1.25, (count, genes))
    children = np.where(crossed, mothers + share * (fathers - mothers), mothers)
    mutated = chance.random((count, genes)) < settings.mutation
    # A child that is nobody's but its mother's must differ from her.
    same = ~crossed[:, 0] & ~mutated.any(axis=1)
    mutated[same, chance.integers(genes, size=int(same.sum()))] = settings.mutation > 0
    children = np.where(mutated, children + chance.normal(0.0, spread, (count, genes)) * (high - low), children)
    clipped: Floats = np.clip(children, low, high)
    return clipped


def _winners(chance: np.random.Generator, fitness: Floats, count: int) -> Floats:
    entered = chance.integers(len(fitness), size=(count, TOURNAMENT))
    winners: Floats = entered[np.arange(count), fitness[entered].argmax(axis=1)]
    return winners


def _usable(fitness: Floats) -> Floats:
    found: Floats = np.where(np.isfinite(fitness), fitness, -np.inf)
    return found


def _mean(fitness: Floats) -> float:
    usable = fitness[np.isfinite(fitness)]
    return float(usable.mean()) if usable.size else float("-inf")
