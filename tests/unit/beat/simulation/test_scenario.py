"""What a seed draws: offered load, deadlines, speeds, the part of the trace."""

from __future__ import annotations

import numpy as np
import pytest

from cloudai_beat.simulation.fleets import SimulatedNode
from cloudai_beat.simulation.scenario import Setting, earlier_and_later, make_scenario
from cloudai_beat.simulation.trace_files import read_trace
from cloudai_beat.simulation.workload import Job, trace_of

TRACE = read_trace("synthetic:mixed")


@pytest.mark.parametrize("load", [0.3, 0.8, 2.0])
def test_arrivals_are_rescaled_to_the_offered_load(load: float) -> None:
    made = make_scenario(TRACE, Setting(load=load), 3)
    speeds = np.array([node.speed for node in made.fleet])
    demanded = (made.trace.demand * made.trace.runtime_s[:, None]).sum(axis=0)
    span = made.arrival_s[-1] - made.arrival_s[0]
    total = made.capacity.sum(axis=0)
    loads = demanded[total > 0] / (total[total > 0] * speeds.mean() * span)
    assert loads.max() == pytest.approx(load)


def test_the_order_and_the_pattern_of_arrivals_stay() -> None:
    made = make_scenario(TRACE, Setting(load=0.5), 3)
    factor = made.arrival_s[-1] / TRACE.arrival_s[-1]
    assert np.allclose(made.arrival_s, TRACE.arrival_s * factor)


def test_deadlines_are_k_times_the_true_runtime() -> None:
    made = make_scenario(TRACE, Setting(), 3)
    k = (made.deadline_s - made.arrival_s) / TRACE.runtime_s
    assert (k.min(), k.max()) == (pytest.approx(1.5, abs=0.01), pytest.approx(2.5, abs=0.01))
    fixed = make_scenario(TRACE, Setting(k=3.0), 3)
    assert np.allclose((fixed.deadline_s - fixed.arrival_s) / TRACE.runtime_s, 3.0)


def test_a_deadline_of_the_trace_is_kept_unless_k_is_given() -> None:
    trace = trace_of("log", [Job(2, 0, 10, 1.0, deadline_s=77), Job(3, 5, 10, 1.0)])
    made = make_scenario(trace, Setting(), 0)
    assert made.deadline_s[0] - made.arrival_s[0] == 77
    assert 15 <= made.deadline_s[1] - made.arrival_s[1] <= 25
    assert make_scenario(trace, Setting(k=2.0), 0).deadline_s[0] == pytest.approx(20)


def test_a_seed_draws_the_same_and_another_seed_something_else() -> None:
    first, again, other = (make_scenario(TRACE, Setting(jobs=500), seed) for seed in (1, 1, 2))
    assert np.array_equal(first.slowness, again.slowness)
    assert np.array_equal(first.deadline_s, again.deadline_s)
    assert not np.array_equal(first.slowness, other.slowness)


def test_jobs_takes_jobs_in_a_row() -> None:
    made = make_scenario(TRACE, Setting(jobs=100), 4)
    start = int(np.flatnonzero(TRACE.runtime_s == made.trace.runtime_s[0])[0])
    assert len(made) == 100
    assert np.array_equal(made.trace.runtime_s, TRACE.runtime_s[start : start + 100])
    assert made.arrival_s[0] == 0
    assert len(make_scenario(TRACE, Setting(jobs=10**9), 4)) == len(TRACE)


def test_a_trace_whose_jobs_all_arrive_at_once() -> None:
    trace = trace_of("log", [Job(2, 5, 10, 1.0), Job(3, 5, 10, 1.0)])
    assert make_scenario(trace, Setting(), 0).arrival_s.tolist() == [0, 0]


def test_the_best_idle_runtime_is_that_of_the_fastest_node_that_holds_the_job() -> None:
    trace = trace_of("log", [Job(2, 0, 10, 1.0), Job(3, 5, 10, 4.0)])
    fleet = (SimulatedNode("fast", (2000, 0, 0, 0), 8, 2.0), SimulatedNode("slow", (8000, 0, 0, 0), 8, 0.5))
    made = make_scenario(trace, Setting(fleet=fleet), 0)
    small, large = made.best_idle_s() / (trace.runtime_s * made.noise)
    slowness = made.slowness[0]
    assert small == pytest.approx(min(slowness * (1 + made.theta[0] / np.array([2, 8]))))
    assert large == pytest.approx(slowness[1] * (1 + made.theta[0] / 2))


def test_the_earlier_and_the_later_part_are_the_whole() -> None:
    made = make_scenario(TRACE, Setting(), 1)
    earlier, later = earlier_and_later(made, 0.5)
    assert len(earlier) + len(later) == len(made)
    assert later.arrival_s[0] == 0
    assert np.allclose(later.deadline_s - later.arrival_s, (made.deadline_s - made.arrival_s)[len(earlier) :])
    assert np.array_equal(later.slowness, made.slowness)
