"""`rts-tuned`: parameters evolved on the earlier part of a trace, with what was seen of it and nothing else.

As the optimiser does it: the earlier part runs under the given parameters. What completions have shown there of speeds
is in the tables of the parameters, and is the world that candidates are replayed in. The best of them must then beat
the given genes on a slice that the search has not seen, or those stay, with the tables.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.task_types import TASK_TYPES
from cloudai_beat.genetic.evolution import GASettings, evolve
from cloudai_beat.genetic.genes import Floats, GeneSpace
from cloudai_beat.genetic.guard import block_gains, judge
from cloudai_beat.replay import Options, Outcome, ReplayParameters, replay
from cloudai_beat.simulation.bridge import Replayable
from cloudai_beat.simulation.scenario import Scenario, earlier_and_later

#: Share of the jobs, by arrival, on which parameters are evolved; the rest judges.
TUNED_ON = 0.5
#: Share of the earlier part that the search sees; the guard judges on the rest of it.
_SEARCHED_ON = 0.7
#: Jobs that the search replays at most, of the end of its part: more make it slower and hardly better.
_MOST_JOBS = 12_000

_SETTINGS = GASettings(population=24, generations=10)
#: Replays at once: they run without Python's lock.
_AT_ONCE = 2


def tuned(earlier: Scenario, given: GAParams, seed: int) -> GAParams:
    """Parameters for what follows the earlier part; the given ones where nothing better was found."""
    if len(earlier) < 50:
        return given
    ran = _run(Replayable(earlier), given)
    refreshed = _with_tables(given, earlier, ran)
    seen = Replayable(_as_seen(earlier, ran))
    searched, held_out = earlier_and_later(seen.scenario, _SEARCHED_ON)
    if len(searched) > _MOST_JOBS:
        _, searched = earlier_and_later(searched, 1 - _MOST_JOBS / len(searched))
    space = GeneSpace.around(refreshed, cap=None)
    on, apart = Replayable(searched), Replayable(held_out)
    _ = on.workload.shapes, on.fleet, on.environment
    with ThreadPoolExecutor(_AT_ONCE) as pool:

        def fitness(genome: Floats) -> float:
            return 1.0 - _run(on, space.parameters(genome)).miss_rate - 0.005 * space.disorder(genome)

        found = evolve(
            lambda genomes: np.array(list(pool.map(fitness, genomes))),
            space.start, space.low, space.high, _SETTINGS, seed,
        )  # fmt: skip
        candidate = space.parameters(found.best)
        before, after = pool.map(lambda parameters: _run(apart, parameters).missed, (refreshed, candidate))
    gains = block_gains(before.astype(np.float64) - after.astype(np.float64))
    return candidate if judge(gains, seed).better else refreshed


def _with_tables(given: GAParams, scenario: Scenario, outcome: Outcome) -> GAParams:
    """The parameters with the speeds that were learned, for the types that ran."""
    names = [node.name for node in scenario.fleet]
    kinds = np.unique(scenario.trace.kind).tolist()
    learned = {
        str(TASK_TYPES[kind]): dict(zip(names, outcome.speed[kind].tolist(), strict=True)) for kind in kinds
    }
    return replace(given, speed={**given.speed, **learned})


def _run(world: Replayable, parameters: GAParams) -> Outcome:
    spread = ReplayParameters.of(parameters, world.fleet)
    return replay(world.workload, world.fleet, world.environment, spread, Options(seed=world.scenario.seed))


def _as_seen(scenario: Scenario, outcome: Outcome) -> Scenario:
    """The world as completions have shown it: learned speeds, and run times that explain what was measured."""
    speed: Floats = outcome.speed
    ran = outcome.node >= 0
    measured = np.where(ran, outcome.finish - outcome.start, scenario.trace.runtime_s)
    expected = np.where(ran, speed[scenario.trace.kind, outcome.node], 1.0)
    return replace(
        scenario,
        trace=replace(scenario.trace, runtime_s=measured / expected),
        slowness=speed,
        noise=np.ones(len(scenario)),
        theta=np.zeros(4),
    )
