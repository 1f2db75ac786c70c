"""`rts-tuned`: parameters evolved on the earlier part of a trace, with what was seen of it and nothing else.

As the optimiser does it: the earlier part runs under the given parameters. What completions have shown there of speeds
and misses is in the tables of the parameters, and is the world that candidates are replayed in.

Few of the deadlines are won or lost by the parameters, so what looks best on one stretch of work is partly luck. Hence
several searches, on all of what was seen and on its halves, each as it was and busier. Their mean is taken, in which
luck cancels; it was not searched for anywhere, so what it gains tells something. Where it gains nothing the given genes
stay, with the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cloudai.scheduling.parameters import GAParams
from cloudai_beat.genetic.evolution import GASettings, evolve
from cloudai_beat.genetic.genes import GENES, Floats, GeneSpace
from cloudai_beat.replay import Options, Outcome, ReplayParameters, replay
from cloudai_beat.simulation.bridge import Replayable
from cloudai_beat.simulation.scenario import Scenario
from cloudai_beat.simulation.seen import Seen, repeated

#: Share of the jobs, by arrival, on which parameters are evolved; the rest judges.
TUNED_ON = 0.5
#: Jobs of the earlier part below which nothing is tuned.
_LEAST_JOBS = 50
#: Jobs that are searched on at most, of the end of the earlier part: more make it slower and hardly better.
_MOST_JOBS = 12_000
#: Stretches that are searched, as shares of those jobs: where one begins and ends, and what its genome weighs in the
#: mean.
_STRETCHES = ((0.0, 1.0, 0.5), (0.0, 0.5, 0.25), (0.5, 1.0, 0.25))
#: How often a stretch is replayed for one candidate: as it was, and busier.
_REPETITIONS = 2

_SETTINGS = GASettings(population=24, generations=8)
#: Genes that nothing depends on here: nodes are never overloaded, and there is no table of penalties.
_IDLE = frozenset({"a3", "g1", "g2", "g3"})
#: What a candidate pays, in share of deadlines: for broken orderings (GeneSpace.disorder), and for the squared way that
#: its genes have gone between their bounds, fixed and by what the given genes miss.
_DISORDER_COST, _WAY_COST, _WAY_COST_OF_MISSES = 0.002, 0.001, 0.02
#: Replays at once: they run without Python's lock.
_AT_ONCE = 2

_Candidate = Callable[[Floats], GAParams]


def tuned(earlier: Scenario, given: GAParams, seed: int) -> GAParams:
    """Parameters for what follows the earlier part: with the genes that were found, where they are any better, and with
    the tables. The given ones where there are too few jobs.
    """
    if len(earlier) < _LEAST_JOBS:
        return given
    seen = Seen.of(earlier, _run(Replayable(earlier), given))
    space = GeneSpace.around(given, genes=[gene for gene in GENES if gene.name not in _IDLE], cap=None)

    def candidate(genome: Floats) -> GAParams:
        return seen.tables(space.parameters(genome))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        stretches = [
            _Stretch(_between(seen.scenario, begin, end), seed + at, pool)
            for at, (begin, end, _) in enumerate(_STRETCHES)
        ]
        found = [stretch.search(space, candidate, seed + at) for at, stretch in enumerate(stretches)]
        given_genes = candidate(space.start)
        mean = candidate(np.average(found, axis=0, weights=[weight for *_, weight in _STRETCHES]))
        gain = sum(stretch.misses(given_genes) - stretch.misses(mean) for stretch in stretches)
    return mean if gain > 0 else given_genes


def _between(scenario: Scenario, begin: float, end: float) -> Scenario:
    """From one share of the last `_MOST_JOBS` jobs to another."""
    jobs = min(len(scenario), _MOST_JOBS)
    first = len(scenario) - jobs
    return scenario.part(first + round(begin * jobs), first + round(end * jobs))


class _Stretch:
    """Some of what was seen, with its repetitions."""

    def __init__(self, scenario: Scenario, seed: int, pool: ThreadPoolExecutor) -> None:
        self._worlds = [Replayable(made) for made in repeated(scenario, _REPETITIONS, seed)]
        for world in self._worlds:
            # Made here once, not in two threads at the same time.
            _ = world.workload.shapes, world.fleet, world.environment
        self._pool = pool

    def misses(self, parameters: GAParams) -> float:
        """Share of missed deadlines."""
        return float(np.mean([_run(world, parameters).miss_rate for world in self._worlds]))

    def search(self, space: GeneSpace, candidate: _Candidate, seed: int) -> Floats:
        """The best genome here."""
        way_cost = _WAY_COST + _WAY_COST_OF_MISSES * self.misses(candidate(space.start))

        def fitness(genome: Floats) -> float:
            way = float(((genome - space.start) ** 2).sum())
            return 1.0 - self.misses(candidate(genome)) - _DISORDER_COST * space.disorder(genome) - way_cost * way

        found = evolve(
            lambda genomes: np.array(list(self._pool.map(fitness, genomes))),
            space.start, space.low, space.high, _SETTINGS, seed,
        )  # fmt: skip
        return found.best


def _run(world: Replayable, parameters: GAParams) -> Outcome:
    spread = ReplayParameters.of(parameters, world.fleet)
    return replay(world.workload, world.fleet, world.environment, spread, Options(seed=world.scenario.seed))
