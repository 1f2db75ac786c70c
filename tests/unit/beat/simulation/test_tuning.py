"""`rts-tuned`: what was seen of the earlier part, and what is made of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cloudai.scheduling.parameters import GAParams
from cloudai_beat.replay import Outcome
from cloudai_beat.simulation.bridge import Replayable
from cloudai_beat.simulation.scenario import Scenario, Setting, earlier_and_later, make_scenario
from cloudai_beat.simulation.seen import Seen, repeated
from cloudai_beat.simulation.study import run_policy
from cloudai_beat.simulation.trace_files import read_trace
from cloudai_beat.simulation.tuning import tuned

#: The first test of a run may have to wait for the engine to be compiled.
pytestmark = pytest.mark.timeout(600)

GIVEN = GAParams(speed={"mixed": {"elsewhere": 2.0}})


@pytest.fixture(scope="module")
def whole() -> Scenario:
    """So much work that deadlines are missed."""
    return make_scenario(read_trace("synthetic:steady"), Setting(load=0.9, jobs=1200), 2)


@pytest.fixture(scope="module")
def earlier(whole: Scenario) -> Scenario:
    return earlier_and_later(whole, 0.5)[0]


@pytest.fixture(scope="module")
def ran(earlier: Scenario) -> Outcome:
    return run_policy(Replayable(earlier), "rts", GIVEN)


def test_the_seen_world_explains_what_was_measured(earlier: Scenario, ran: Outcome) -> None:
    seen = Seen.of(earlier, ran).scenario
    runs = seen.trace.runtime_s * seen.slowness[seen.trace.kind, ran.node]
    assert np.allclose(runs, ran.finish - ran.start)
    assert not seen.theta.any()
    assert (seen.noise == 1).all()


def test_nothing_of_the_truth_is_seen(earlier: Scenario, ran: Outcome) -> None:
    other = replace(
        earlier,
        trace=replace(earlier.trace, runtime_s=earlier.trace.runtime_s * 3),
        slowness=earlier.slowness[:, ::-1].copy(),
        noise=earlier.noise * 2,
        theta=np.ones(4),
    )
    seen, again = Seen.of(earlier, ran), Seen.of(other, ran)
    assert np.array_equal(seen.scenario.trace.runtime_s, again.scenario.trace.runtime_s)
    assert np.array_equal(seen.scenario.slowness, again.scenario.slowness)
    assert seen.tables(GIVEN) == again.tables(GIVEN)


def test_tables_are_of_the_types_that_ran_and_follow_the_weights(earlier: Scenario, ran: Outcome) -> None:
    seen = Seen.of(earlier, ran)
    found = seen.tables(GIVEN)
    assert found.speed["mixed"] == {"elsewhere": 2.0}
    kind = next(kind for kind in found.affinity if kind != "mixed")
    names = [node.name for node in earlier.fleet]
    assert list(found.speed[kind]) == list(found.affinity[kind]) == names
    # With nothing but speed in it, the affinity orders the nodes from fast to slow.
    only = seen.tables(replace(GIVEN, a1=1.0, a2=0.0)).affinity[kind]
    assert sorted(names, key=lambda name: -only[name]) == sorted(names, key=lambda name: found.speed[kind][name])
    assert replace(found, speed=GIVEN.speed, affinity={}) == GIVEN


def test_repetitions_are_the_same_jobs_busier_and_in_another_order(earlier: Scenario) -> None:
    first, second, third = repeated(earlier, 3, 7)
    assert first is earlier
    assert not np.array_equal(second.arrival_s, third.arrival_s)
    for made in (second, third):
        assert (np.diff(made.arrival_s) >= 0).all()
        assert made.arrival_s[0] == 0
        # Half as many again in the same time; single ones, the first and the last among them, may be early or late.
        middle, was = (np.subtract(*np.percentile(each.arrival_s, [75, 25])) for each in (made, earlier))
        assert middle == pytest.approx(was / 1.5, rel=0.1)
        allowed = made.deadline_s - made.arrival_s
        assert np.allclose(np.sort(allowed), np.sort(earlier.deadline_s - earlier.arrival_s))
        # Each job has kept what belongs to it.
        jobs, were = ({*zip(s.trace.runtime_s, s.trace.kind, strict=True)} for s in (made, earlier))
        assert jobs == were
    again = repeated(earlier, 2, 7)[1]
    assert np.array_equal(again.arrival_s, second.arrival_s)


def test_bad_genes_are_bettered_for_work_that_was_not_seen(whole: Scenario) -> None:
    # The idlest node always, however slow, and hopeless tasks first: deadlines are missed that need not be.
    bad = GAParams(a1=0.05, a2=0.05, alpha=0.0, beta=100.0, order_margin=0.25)
    earlier, later = earlier_and_later(whole, 0.5)
    found = tuned(earlier, bad, 3)
    assert found == tuned(earlier, bad, 3)
    assert (found.alpha, found.beta) != (bad.alpha, bad.beta)
    before, after = (run_policy(Replayable(later), "rts", parameters).miss_rate for parameters in (bad, found))
    assert after < 0.9 * before


def test_without_a_gain_on_what_was_not_seen_the_genes_stay(whole: Scenario) -> None:
    # So little work that no parameter makes a difference.
    idle = make_scenario(whole.trace, Setting(load=0.01, jobs=300), 2)
    found = tuned(idle, GAParams(), 3)
    assert replace(found, speed={}, affinity={}) == GAParams()


def test_a_few_jobs_say_nothing(earlier: Scenario) -> None:
    few = earlier_and_later(earlier, 49 / len(earlier))[0]
    assert len(few) == 49
    assert tuned(few, GIVEN, 1) is GIVEN
