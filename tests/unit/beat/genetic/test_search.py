"""The search of an epoch over histories whose truth is known, and over bad ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cloudai.history.records import TaskHistory, WorkerStats
from cloudai.scheduling.learning import LearningRule
from cloudai.scheduling.parameters import GAParams
from cloudai.settings import Settings
from cloudai_beat.genetic.candidates import REPETITIONS, compared
from cloudai_beat.genetic.fitness import Weights
from cloudai_beat.genetic.past import NothingToReplay, past_of
from cloudai_beat.genetic.search import LEAST_GAIN, GeneticSearch
from cloudai_beat.replay import Options
from cloudai_beat.searching import SearchInputs, SearchOutcome
from cloudai_beat.statistics import refresh
from cloudai_beat.synthetic import Truth, synthetic_history

#: The first test of a run may have to wait for the engine to be compiled.
pytestmark = pytest.mark.timeout(600)

History = tuple[list[TaskHistory], list[WorkerStats]]

SEARCH = GeneticSearch(compile_wait_s=600.0, budget_s=1e6)
FLEET = {f"node-{i}": factor for i, factor in enumerate((0.5, 0.7, 1.0, 1.0, 1.5, 2.0))}


@pytest.fixture(scope="module")
def busy() -> History:
    """So much work that deadlines are missed."""
    return synthetic_history(Truth(speeds=FLEET), 1500, seed=3, span_s=1100.0)


def searched(
    history: Sequence[TaskHistory], workers: Sequence[WorkerStats], in_force: GAParams | None = None, **changes: object
) -> SearchOutcome:
    settings = Settings().optimiser.model_copy(update={"population_size": 12, "generations": 6, **changes})
    in_force = in_force or GAParams()
    refreshed = refresh(history, workers, in_force).parameters
    return SEARCH(SearchInputs(history, workers, in_force, refreshed, settings, seed=5))


def test_it_replays_what_was_recorded(busy: History) -> None:
    history, workers = busy
    past = past_of(history, workers, GAParams(theta1=0.1, speed=dict.fromkeys(("mixed", "cpu-light"), FLEET)))
    assert len(past.case) == len(history)
    assert past.case.fleet.names == tuple(FLEET)
    assert past.left_out == {}
    assert past.case.workload.arrival[0] == 0.0
    # On its own node and under its own contention, a task runs as long as it did.
    record = min(history, key=lambda record: record.arrival_time)
    kind, node = "cpu-light mixed".find(record.task_type) >= 0, FLEET[record.worker_id]
    bracket = 1 + np.dot((0.1, 0.1, 0.3, 0.2), record.features or ())
    expected = record.actual_runtime / (bracket * (node if kind else 1.0))
    assert past.case.workload.runtime[0] == pytest.approx(expected)


def test_bad_genes_are_replaced_by_better_ones_that_hold_on_later_work() -> None:
    # The idlest node always, however slow: deadlines are missed that need not be.
    bad = GAParams(a1=0.0, a2=0.0, alpha=0.0, beta=1000.0)
    busy = synthetic_history(Truth(speeds=FLEET), 2500, seed=4, span_s=1500.0)
    outcome = searched(*busy, in_force=bad)
    assert outcome.parameters is not None, outcome.reason
    assert outcome.gain is not None
    assert outcome.bound is not None
    assert outcome.gain >= LEAST_GAIN
    assert outcome.bound > 0
    assert list(outcome.best_fitness) == sorted(outcome.best_fitness)
    assert outcome.mean_fitness[-1] > outcome.mean_fitness[0]
    assert outcome.evaluations == 12 + 5 * 10
    assert "on later work" in outcome.reason
    # Theta is scaled as a whole, tables are complete, nothing else but genes has changed.
    refreshed = refresh(*busy, bad).parameters
    assert outcome.parameters.speed == refreshed.speed
    assert outcome.parameters.base == refreshed.base
    assert outcome.parameters.affinity.keys() == refreshed.affinity.keys()


def test_the_same_inputs_find_the_same(busy: History) -> None:
    assert searched(*busy) == searched(*busy)


def test_candidates_are_judged_by_the_weights_of_the_operator(busy: History) -> None:
    history, workers = sorted(busy[0], key=lambda record: record.arrival_time)[:600], busy[1]
    only = {"weight_utilisation": 0.0, "weight_energy": 0.0, "weight_overload": 0.0}
    found = searched(history, workers, weight_sla=1.0, **only)
    assert found == searched(history, workers, weight_sla=0.5, **only)
    # Nothing but the share of deadlines met: a count of the 360 earlier tasks, three times each.
    assert found.best_fitness[0] * 360 * REPETITIONS == pytest.approx(round(found.best_fitness[0] * 1080), abs=0.01)
    assert found.best_fitness != searched(history, workers).best_fitness


def test_a_light_load_is_nothing_to_gain_from() -> None:
    outcome = searched(*synthetic_history(Truth(speeds=FLEET), 400, seed=3, span_s=200_000.0))
    assert outcome.parameters is None
    assert "worth a change" in outcome.reason or "not published" in outcome.reason


def test_evolved_genes_that_do_not_hold_on_later_work_are_not_published(busy: History) -> None:
    history, workers = busy
    # What comes later is so light that no order makes a difference.
    history = sorted(history, key=lambda record: record.arrival_time)
    later = [
        replace(r, arrival_time=r.arrival_time + 400.0 * k, deadline=r.deadline + 400.0 * k + 1e6,
                actual_finish=r.actual_finish + 400.0 * k)
        for k, r in enumerate(history[900:])
    ]  # fmt: skip
    outcome = searched([*history[:900], *later], workers, in_force=GAParams(alpha=0.1, beta=100.0, a1=0.05))
    assert outcome.parameters is None
    assert outcome.evaluations > 0


def test_gains_are_those_of_the_fitness(busy: History) -> None:
    case = past_of(*busy, refresh(*busy, GAParams()).parameters).case
    bad, good = GAParams(alpha=0.0, beta=100.0), GAParams()
    gains = compared([case], bad, good, Weights(1.0, 0.0, 0.0, 0.0))
    assert gains.mean() == pytest.approx(case.run(bad).miss_rate - case.run(good).miss_rate)


def test_the_past_is_replayed_with_the_rule_by_which_tau_is_learned(busy: History) -> None:
    quick = past_of(*busy, GAParams(), Options(rule=LearningRule(rate=0.9))).case.run(GAParams())
    slow = past_of(*busy, GAParams(), Options(rule=LearningRule(rate=0.01))).case.run(GAParams())
    usual = past_of(*busy, GAParams()).case.run(GAParams())
    default = past_of(*busy, GAParams(), Options(rule=LearningRule())).case.run(GAParams())
    assert (usual.predicted == default.predicted).all()
    assert not (quick.predicted == usual.predicted).all()
    assert not (slow.predicted == usual.predicted).all()


def test_a_thinned_sample_is_replayed_as_densely_as_the_work_was(busy: History) -> None:
    history, workers = busy
    past = past_of(history[::3], workers, GAParams())
    assert past.thinned == pytest.approx(3.0, rel=0.2)
    slack = past.case.workload.deadline - past.case.workload.arrival
    assert slack.min() == pytest.approx(min(r.deadline - r.arrival_time for r in history[::3]))


@pytest.mark.parametrize("nodes", [1, 3])
def test_one_type_on_few_nodes(busy: History, nodes: int) -> None:
    speeds = dict(list(FLEET.items())[:nodes])
    history, workers = synthetic_history(Truth(speeds=speeds), 900, seed=4, span_s=2000.0)
    outcome = searched([record for record in history if record.task_type == "cpu-heavy"], workers)
    assert outcome.reason
    assert len(outcome.best_fitness) == 6


def test_records_and_nodes_that_cannot_be_replayed_are_counted(busy: History) -> None:
    history, workers = busy
    broken = [
        replace(history[0], arrival_time=math.nan),
        replace(history[1], actual_runtime=math.inf),
        replace(history[2], actual_runtime=1e9),
        replace(history[3], cpu=math.nan),
        replace(history[4], cpu=1000.0),
        replace(history[5], deadline=math.inf),
        replace(history[6], outcome="lost", worker_id=""),
    ]
    gone = replace(workers[0], worker_id="gone")
    learned = refresh(history, workers, GAParams()).parameters
    past = past_of([*broken, *history[7:]], [*workers, gone, replace(workers[0], cpu=math.nan)], learned)
    assert past.left_out == {
        "a time that is not finite": 2,
        "no runtime that is finite and positive": 1,
        "a runtime longer than the task was there": 1,
        "an amount that is no number from 0": 1,
        "a task that no node of now could hold": 1,
        "a node that has left": 1,
        "a node whose capacity is not known": 1,
    }
    assert "left out 1 with an amount that is no number from 0" in searched([*broken, *history[7:]], workers).reason


def test_a_window_with_nothing_to_replay_says_why(busy: History) -> None:
    history, workers = busy
    with pytest.raises(NothingToReplay, match="no attempt"):
        past_of([], workers, GAParams())
    with pytest.raises(NothingToReplay, match="no node"):
        past_of(history, [], GAParams())
    few = searched(history[:60], workers)
    assert few.parameters is None
    assert "60 tasks can be replayed, 100 are needed" in few.reason
    assert "no node" in searched(history, [replace(worker, cpu=0.0) for worker in workers]).reason
