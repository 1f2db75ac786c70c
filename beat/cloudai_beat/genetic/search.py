"""The search of an epoch: evolve on the earlier work, and let the later work judge (spec section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cloudai.history.records import TaskHistory, WorkerStats
from cloudai.scheduling.parameters import GAParams
from cloudai_beat.columns import columns_of
from cloudai_beat.genetic.candidates import REPETITIONS, Candidates, Tables, compared, repeated, shortened
from cloudai_beat.genetic.compiling import COMPILATION
from cloudai_beat.genetic.evolution import Evolution, GASettings, evolve
from cloudai_beat.genetic.fitness import Weights
from cloudai_beat.genetic.genes import CAP, GeneSpace
from cloudai_beat.genetic.guard import block_gains, judge
from cloudai_beat.genetic.past import NothingToReplay, Past, past_of
from cloudai_beat.merits import affinities, penalties, with_all_rows
from cloudai_beat.replay import Options
from cloudai_beat.searching import SearchInputs, SearchOutcome

#: Share of the tasks, by arrival, that candidates are evolved on; the rest judges the best of them.
EARLIER = 0.6
#: Tasks that there must be in all.
LEAST_TASKS = 100
#: Time that the replays of one search may take, s.
BUDGET_S = 5.0
#: Tasks that are replayed at least, however long it takes.
LEAST_REPLAYED = 500
#: Gain in fitness that is worth other parameters.
LEAST_GAIN = 0.001
#: Digits of the tables, as the epoch publishes them.
_DIGITS = 4


@dataclass(frozen=True)
class GeneticSearch:
    """A Search (searching.py). The same inputs give the same outcome, but for what `budget_s` cuts off."""

    cap: float | None = CAP
    budget_s: float = BUDGET_S
    #: how long it waits for the engine to be compiled, s: that is needed once on a machine
    compile_wait_s: float = 15.0

    def __call__(self, inputs: SearchInputs) -> SearchOutcome:
        """Search around what would be published without it; an outcome without parameters says why."""
        try:
            learning = Options(rule=inputs.rule, family_after=inputs.family_after)
            past = past_of(inputs.history, inputs.workers, inputs.refreshed, learning)
        except NothingToReplay as error:
            return _nothing(f"no search: {error}")
        if len(past.case) < LEAST_TASKS:
            return _nothing(f"no search: {len(past.case)} tasks can be replayed, {LEAST_TASKS} are needed")
        if not COMPILATION.ready(self.compile_wait_s):
            return _nothing("no search yet: the replay engine is being compiled, which is done once on a machine")
        return self._searched(inputs, past)

    def _searched(self, inputs: SearchInputs, past: Past) -> SearchOutcome:
        settings = GASettings(
            inputs.settings.population_size,
            inputs.settings.generations,
            inputs.settings.mutation_rate,
            inputs.settings.crossover_rate,
        )
        weights = Weights.of(inputs.settings)
        cut = int(EARLIER * len(past.case))
        earlier, later = past.case.part(0, cut), past.case.part(cut, len(past.case))
        replays = REPETITIONS * settings.population * settings.generations
        earlier = shortened(earlier, [inputs.refreshed], replays, self.budget_s, LEAST_REPLAYED)
        space = GeneSpace.around(inputs.refreshed, cap=self.cap, theta_factor=inputs.theta_factor)
        tables = tables_of(inputs.history, inputs.workers, inputs.refreshed)
        candidates = Candidates(repeated(earlier, REPETITIONS, inputs.seed), space, weights, tables)
        found = evolve(candidates, space.start, space.low, space.high, settings, inputs.seed)
        told = _told(len(earlier), len(later), past)
        if found.best_fitness - found.start_fitness < LEAST_GAIN:
            why = f"the best of {found.evaluations} candidates gains {found.best_fitness - found.start_fitness:+.4f}"
            return _outcome(found, None, f"{why}, and {LEAST_GAIN:g} is worth a change {told}")
        best = candidates.parameters(found.best)
        judges = repeated(later, REPETITIONS, inputs.seed + 1)
        verdict = judge(block_gains(compared(judges, inputs.refreshed, best, weights)), inputs.seed)
        if not verdict.better or verdict.gain < LEAST_GAIN:
            reason = (
                f"the best of {found.evaluations} candidates gains {found.best_fitness - found.start_fitness:+.4f} "
                f"where it was evolved, but {_gain(verdict.gain, verdict.bound)} on later work: not published {told}"
            )
            return _outcome(found, None, reason, verdict.gain, verdict.bound)
        gain = _gain(verdict.gain, verdict.bound)
        reason = f"the best of {found.evaluations} candidates gains {gain} on later work {told}"
        return _outcome(found, best, reason, verdict.gain, verdict.bound)


def tables_of(history: Sequence[TaskHistory], workers: Sequence[WorkerStats], refreshed: GAParams) -> Tables:
    """How affinity and penalty follow from the weights a1..a3 and g1..g3, over the statistics of a window."""
    columns = columns_of(history)
    nodes = sorted(set(refreshed.penalty).union(*refreshed.affinity.values()))

    def tables(parameters: GAParams) -> GAParams:
        p, q = parameters, refreshed
        affinity, penalty = q.affinity, q.penalty
        if (p.a1, p.a2, p.a3) != (q.a1, q.a2, q.a3):
            found, _ = affinities(columns, p)
            here = {kind: {n: v for n, v in row.items() if n in nodes} for kind, row in found.items()}
            rows = with_all_rows(here, q.affinity, nodes)
            affinity = {kind: {n: _rounded(v) for n, v in row.items()} for kind, row in rows.items()}
        if (p.g1, p.g2, p.g3) != (q.g1, q.g2, q.g3):
            known, _ = penalties(workers, p)
            penalty = dict(q.penalty) | {name: _rounded(value) for name, value in known.items() if name in nodes}
        return replace(p, affinity=affinity, penalty=penalty)

    return tables


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _gain(gain: float, bound: float) -> str:
    return f"{gain:+.4f} (at least {bound:+.4f})" if np.isfinite(bound) else f"{gain:+.4f} (too little work to be sure)"


def _told(earlier: int, later: int, past: Past) -> str:
    parts = [f"evolved on {earlier} tasks, judged on {later}"]
    if past.thinned > 1:
        parts.append(f"arrivals {past.thinned:.1f} times as dense as recorded, which is a sample")
    parts += [f"left out {count} with {reason}" for reason, count in sorted(past.left_out.items())]
    return f"({'; '.join(parts)})"


def _outcome(
    found: Evolution, parameters: GAParams | None, reason: str, gain: float | None = None, bound: float | None = None
) -> SearchOutcome:
    usable = bound is not None and np.isfinite(bound)
    return SearchOutcome(
        parameters=parameters,
        reason=reason,
        best_fitness=_finite(found.best_by_generation),
        mean_fitness=_finite(found.mean_by_generation),
        evaluations=found.evaluations,
        gain=gain,
        bound=bound if usable else None,
    )


def _finite(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values if np.isfinite(value))


def _nothing(reason: str) -> SearchOutcome:
    return SearchOutcome(None, reason, (), (), 0, None, None)


#: The search that the control process finds by its entry point.
search = GeneticSearch()
