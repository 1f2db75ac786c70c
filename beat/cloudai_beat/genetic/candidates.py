"""Candidates replayed: fitness from what the same work would have come to under each of them (spec section 7)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np

from cloudai.scheduling.parameters import GAParams
from cloudai_beat.genetic.fitness import DISORDER_COST, Terms, Weights, terms
from cloudai_beat.genetic.genes import Floats, GeneSpace
from cloudai_beat.replay import Environment, Fleet, Options, Outcome, ReplayParameters, Workload, replay

#: Makes the tables of a candidate from its genes: affinity and penalty depend on a1..a3 and g1..g3.
Tables = Callable[[GAParams], GAParams]

#: Repetitions of the work with other noise, and its sigma (of the logarithm).
REPETITIONS, NOISE_SIGMA = 3, 0.15

#: Replays at once; they run without Python's lock.
AT_ONCE = max(1, min(2, os.cpu_count() or 1))


@dataclass(frozen=True)
class Case:
    """Work, nodes and truth that every candidate meets alike."""

    workload: Workload
    fleet: Fleet
    environment: Environment
    options: Options = field(default_factory=Options)

    def __len__(self) -> int:
        return len(self.workload)

    def part(self, first: int, last: int) -> Case:
        """The tasks from `first` up to but without `last`."""
        environment = replace(self.environment, noise=self.environment.noise[first:last].copy())
        return replace(self, workload=self.workload.part(first, last), environment=environment)

    def run(self, parameters: GAParams) -> Outcome:
        """Replay it."""
        return replay(
            self.workload, self.fleet, self.environment, ReplayParameters.of(parameters, self.fleet), self.options
        )


def repeated(case: Case, count: int, seed: int) -> list[Case]:
    """The work `count` times with other noise on the runtimes, the same for every candidate.

    Which task is a second too late is much a matter of chance: what is better on average is better, what is better
    once was lucky.
    """
    chance = np.random.default_rng((seed, 1_009))
    noise = np.exp(chance.normal(0.0, NOISE_SIGMA, (count, len(case))))
    return [
        replace(case, environment=replace(case.environment, noise=case.environment.noise * row)) for row in noise
    ]


def terms_of(case: Case, outcome: Outcome) -> Terms:
    """The four terms of the fitness."""
    ea, eb, ec = case.environment.energy
    full = ea * outcome.total[0] + eb * outcome.total[1] + ec * outcome.total[2]
    # What all tasks leave alone (disk, mostly) would only dilute the share that is used.
    asked = outcome.used.sum(axis=1, keepdims=True) > 0
    return terms(
        missed=outcome.missed.astype(np.float64),
        used=outcome.used,
        total=np.where(asked, outcome.total, 0.0),
        energy=outcome.energy,
        energy_full=full,
        overload_s=outcome.overload,
        span_s=outcome.span,
    )


class Candidates:
    """Evaluates genomes on some work, on all cores; the fitness is the mean over its repetitions."""

    def __init__(
        self,
        cases: Sequence[Case],
        space: GeneSpace,
        weights: Weights,
        tables: Tables = lambda parameters: parameters,
    ) -> None:
        self._cases = cases
        self._space = space
        self._weights = weights
        self._tables = tables

    def parameters(self, genome: Floats) -> GAParams:
        """The candidate, tables included."""
        return self._tables(self._space.parameters(genome))

    def __call__(self, genomes: Floats) -> Floats:
        """Fitness of each, less what broken orderings cost; shape (k,)."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return np.array(list(pool.map(self._one, genomes)), dtype=np.float64)

    def _one(self, genome: Floats) -> float:
        parameters = self.parameters(genome)
        found = [terms_of(case, case.run(parameters)).fitness(self._weights) for case in self._cases]
        return sum(found) / len(found) - DISORDER_COST * self._space.disorder(genome)


def compared(cases: Sequence[Case], before: GAParams, after: GAParams, weights: Weights) -> Floats:
    """What `after` gains over `before` in fitness, task by task in order of arrival: shape (m,), the mean over the
    repetitions. The mean of it is the gain.
    """

    def gains(case: Case) -> Floats:
        old, new = case.run(before), case.run(after)
        kept = old.missed.astype(np.float64) - new.missed.astype(np.float64)
        first, second = terms_of(case, old), terms_of(case, new)
        alone = replace(weights, sla=0.0)
        found: Floats = weights.sla * kept + (second.fitness(alone) - first.fitness(alone))
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found: Floats = np.mean(list(pool.map(gains, cases)), axis=0)
    return found


def shortened(case: Case, parameters: Sequence[GAParams], replays: int, budget_s: float, least: int) -> Case:
    """The latest part of the work that `replays` replays of can be had in about `budget_s` seconds; at least `least`
    tasks.
    """
    # The first replay of a process reads the machine code.
    case.part(0, 1).run(parameters[0])
    while True:
        began = perf_counter()
        for candidate in parameters:
            case.run(candidate)
        took_s = (perf_counter() - began) / len(parameters) * replays / AT_ONCE
        if took_s <= budget_s or len(case) <= least:
            return case
        # In overload the time of a replay grows faster than the work.
        share = max(0.1, 0.9 * (budget_s / took_s) ** 0.75)
        case = case.part(len(case) - max(least, int(share * len(case))), len(case))
