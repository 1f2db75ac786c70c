"""The earlier part of a trace as its completions have shown it: tables for the parameters, and a world to search in.

Nothing of the truth gets through: speeds are those that were learned, run times those that were measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cloudai.scheduling.formula import affinity_score
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.task_types import TASK_TYPES
from cloudai_beat.replay import Outcome
from cloudai_beat.simulation.scenario import Scenario
from cloudai_beat.simulation.workload import FloatColumn

#: Runs that a pair's share of misses is drawn towards its type's by.
_LIKE_THE_TYPE = 5.0
#: How far an arrival is moved in another repetition: sigma, of the time from arrival to deadline.
_MOVED = 0.1
#: How much denser the arrivals of another repetition are: work to come may be busier, and there parameters count most.
_DENSER = 1.5


@dataclass(frozen=True)
class Seen:
    """What an earlier part has shown."""

    #: speed factors as learned, run times that explain what was measured with them, no contention apart from them
    scenario: Scenario
    #: (6, m) share of misses of each pair of type and node, drawn towards the type's
    miss_share: FloatColumn
    #: rows of the types that ran
    kinds: tuple[int, ...]

    @classmethod
    def of(cls, scenario: Scenario, outcome: Outcome) -> Seen:
        """What a run of the scenario has shown."""
        speed, kind = outcome.speed, scenario.trace.kind
        ran = outcome.node >= 0
        measured = np.where(ran, outcome.finish - outcome.start, scenario.trace.runtime_s)
        expected = np.where(ran, speed[kind, outcome.node], 1.0)
        pair = (kind * speed.shape[1] + outcome.node)[ran]
        runs = np.bincount(pair, minlength=speed.size).reshape(speed.shape)
        missed = np.bincount(pair, outcome.missed[ran], minlength=speed.size).reshape(speed.shape)
        usual = missed.sum(axis=1, keepdims=True) / np.maximum(runs.sum(axis=1, keepdims=True), 1)
        return cls(
            scenario=replace(
                scenario,
                trace=replace(scenario.trace, runtime_s=measured / expected),
                slowness=speed,
                noise=np.ones(len(scenario)),
                theta=np.zeros(4),
            ),
            miss_share=(missed + _LIKE_THE_TYPE * usual) / (runs + _LIKE_THE_TYPE),
            kinds=tuple(np.unique(kind).tolist()),
        )

    def tables(self, parameters: GAParams) -> GAParams:
        """The parameters with speed and affinity as seen, for the types that ran (spec section 7); the affinity follows
        from their weights a1..a3.
        """
        p, names = parameters, [node.name for node in self.scenario.fleet]
        speed = self.scenario.slowness
        affinity = affinity_score(p.a1, p.a2, p.a3, 1.0 / speed, 1.0 - self.miss_share, 0.0)

        def rows(table: FloatColumn) -> dict[str, dict[str, float]]:
            return {str(TASK_TYPES[row]): dict(zip(names, table[row].tolist(), strict=True)) for row in self.kinds}

        return replace(p, speed={**p.speed, **rows(speed)}, affinity={**p.affinity, **rows(affinity)})


def repeated(scenario: Scenario, count: int, seed: int) -> list[Scenario]:
    """The work `count` times, the same for every candidate: as it is, and denser, with arrivals moved a little.

    Which job is a second too late is much a matter of chance: what is better on average is better, what is better once
    was lucky. And what is right for a calm hour only is of little use in a busy one.
    """
    chance = np.random.default_rng((seed, 77))
    return [scenario, *(_denser(scenario, chance) for _ in range(count - 1))]


def _denser(scenario: Scenario, chance: np.random.Generator) -> Scenario:
    allowed = scenario.deadline_s - scenario.arrival_s
    moved = scenario.arrival_s + chance.normal(0.0, _MOVED, len(scenario)) * allowed
    order = np.argsort(moved, kind="stable")
    arrival = (moved[order] - moved[order[0]]) / _DENSER
    return replace(
        scenario,
        trace=replace(scenario.trace.rows(order), arrival_s=arrival),
        arrival_s=arrival,
        deadline_s=arrival + allowed[order],
        noise=scenario.noise[order],
    )
