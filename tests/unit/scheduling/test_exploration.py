"""A small share of tasks tries nodes that little is known of, and never at the price of a deadline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cloudai.scheduling.decision import Decision, read_record
from cloudai.scheduling.exploration import drawn
from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.pipeline import Placer
from cloudai.scheduling.policies import SchedulerPolicy
from cloudai.scheduling.requests import RequestDefaults, parse_request
from cloudai.scheduling.round_robin import RoundRobin
from cloudai.scheduling.rts import RTS
from cloudai.scheduling.scheduler import Context

TASK = parse_request({"cpu": 1}, now=0.0, defaults=RequestDefaults())
SPEED = {"cpu-light": {"fast": 0.5, "slow": 1.4}}
AFFINITY = {"cpu-light": {"fast": 2.0, "slow": 0.0}}

Build = Callable[..., Any]


@pytest.fixture
def decide(node: Callable[..., NodeState], context: Callable[..., Context]) -> Build:
    """Decisions of many tasks of one type over a fast, a slow and two new nodes."""

    def decide(
        percent: float = 10.0, scheduler: Any = None, names: str = "fast new-a new-b slow", **fields: Any
    ) -> list[Decision]:
        placer = Placer(SchedulerPolicy(scheduler or RTS()), explore_percent=percent)
        values = {"parameters": GAParams(speed=SPEED, affinity=AFFINITY), **fields}
        over = context(*(node(name) for name in names.split()), **values)
        return [placer.decide(f"task-{number}", TASK, over) for number in range(2000)]

    return decide


def chosen(decisions: list[Decision]) -> Counter[str]:
    return Counter(decision.candidates[0] for decision in decisions if decision.exploratory)


def test_a_share_of_the_tasks_tries_the_nodes_that_nothing_is_known_of(decide: Build) -> None:
    decisions = decide()
    tried = chosen(decisions)
    assert set(tried) == {"new-a", "new-b"}
    assert 140 < sum(tried.values()) < 260
    assert min(tried.values()) > 50
    assert {d.candidates[0] for d in decisions if not d.exploratory} == {"fast"}


def test_the_same_tasks_explore_in_every_process(decide: Build) -> None:
    first, second = decide(), decide()
    assert [d.candidates for d in first] == [d.candidates for d in second]
    assert all((drawn(d.task_id, 10.0) is not None) == d.exploratory for d in first)


def test_the_best_node_is_the_next_candidate_and_the_record_says_so(decide: Build) -> None:
    decision = next(d for d in decide() if d.exploratory)
    assert decision.candidates[1] == "fast"
    assert decision.scores[0] > decision.scores[1]
    assert read_record(decision.to_record())["exploratory"] is True


def test_when_all_are_known_any_node_may_be_tried(decide: Build) -> None:
    assert set(chosen(decide(names="fast slow"))) == {"fast", "slow"}


@pytest.mark.parametrize("slack_s", [-5.0, 4.0, 13.9])
def test_no_task_explores_where_it_would_miss_at_the_slowest_known_speed(decide: Build, slack_s: float) -> None:
    tried = chosen(decide(slack_s=slack_s))
    assert not set(tried) & {"new-a", "new-b", "slow"}


def test_a_node_that_cannot_take_the_task_is_not_tried(
    decide: Build, node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    placer = Placer(SchedulerPolicy(RTS()), explore_percent=10.0)
    over = context(node("fast"), node("new", cpu_available=0), parameters=GAParams(speed=SPEED))
    assert {placer.decide(f"{n}", TASK, over).candidates[0] for n in range(500)} == {"fast"}


def test_nothing_is_explored_when_it_is_off_or_nothing_was_learned_or_round_robin_decides(decide: Build) -> None:
    assert not chosen(decide(percent=0.0))
    assert not chosen(decide(parameters=GAParams()))
    assert not chosen(decide(scheduler=RoundRobin()))
