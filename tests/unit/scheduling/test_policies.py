"""Round-Robin, the choice of the scheduler, and the guard that watches its fallbacks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.policies import (
    FallbackGuard,
    GuardState,
    SchedulerPolicy,
    in_rollout,
    scheduler_from_path,
)
from cloudai.scheduling.requests import Resources, TaskRequest
from cloudai.scheduling.round_robin import RoundRobin
from cloudai.scheduling.rts import RTS
from cloudai.scheduling.scheduler import Context
from cloudai.scheduling.task_types import TaskType

TASK = TaskRequest(Resources(1000, 1 << 20), TaskType.CPU_LIGHT)


def test_round_robin_goes_round_the_feasible(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    over = context(*(node(name) for name in "abcde"))
    feasible = np.array([True, False, True, True, True])
    turns = RoundRobin()
    ranked = [list(turns.rank(TASK, over, feasible, 3).rows) for _ in range(5)]
    assert ranked == [[0, 2, 3], [2, 3, 4], [3, 4, 0], [4, 0, 2], [0, 2, 3]]


def test_round_robin_is_fair_while_feasibility_changes(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    over = context(*(node(name) for name in "abcd"))
    turns = RoundRobin()
    chosen = []
    for turn in range(400):
        feasible = np.ones(4, dtype=np.bool_)
        feasible[turn % 4] = turn % 2 == 0
        chosen.append(turns.rank(TASK, over, feasible, 1).rows[0])
    counts = np.bincount(chosen, minlength=4)
    assert counts.sum() == 400
    assert counts.min() > 50


def test_round_robin_starts_where_it_is_told(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    over = context(node("a"), node("b"), node("c"))
    feasible = np.ones(3, dtype=np.bool_)
    assert list(RoundRobin(position=3_000_002).rank(TASK, over, feasible, 1).rows) == [2]
    assert list(RoundRobin().rank(TASK, over, np.zeros(3, dtype=np.bool_), 1).rows) == []


def test_rollout_is_stable_and_grows() -> None:
    ids = [f"task-{number}" for number in range(5000)]
    half = {task_id for task_id in ids if in_rollout(task_id, 50)}
    third = {task_id for task_id in ids if in_rollout(task_id, 30)}
    assert third < half
    assert 2300 < len(half) < 2700
    assert not any(in_rollout(task_id, 0) for task_id in ids)
    assert all(in_rollout(task_id, 100) for task_id in ids)


def test_off_and_not_rolled_out_are_round_robin_without_a_fallback() -> None:
    off = SchedulerPolicy(RTS(), enabled=False)
    assert off.choose("x") == (off.round_robin, "")
    none = SchedulerPolicy(RTS(), rollout_percent=0)
    assert none.choose("x") == (none.round_robin, "")
    on = SchedulerPolicy(RTS())
    assert on.choose("x") == (on.scheduler, "")


def fed(guard: FallbackGuard, outcomes: str) -> list[GuardState]:
    """Feed f (fell back) and . (fine); returns the states that were reported."""
    reported = [guard.record(outcome == "f") for outcome in outcomes]
    return [state for state in reported if state is not None]


def test_the_guard_alerts_over_the_share_and_says_when_it_is_over() -> None:
    guard = FallbackGuard(window=20, least=20)
    assert fed(guard, "." * 18 + "ff") == []
    assert guard.rate == 0.1
    assert fed(guard, "f") == [GuardState.ALERT]
    assert fed(guard, "f.") == []
    assert guard.allows()
    assert fed(guard, "." * 20) == [GuardState.NORMAL]


def test_the_guard_does_not_judge_a_few_decisions() -> None:
    guard = FallbackGuard(least=20)
    assert fed(guard, "f" * 19) == []
    assert fed(guard, "f") == [GuardState.TAKEN_OVER]


def test_over_the_limit_round_robin_takes_over_until_the_probes_are_clean() -> None:
    guard = FallbackGuard(window=20, least=10, probe_every=4, probes=3)
    policy = SchedulerPolicy(RTS(), guard=guard)
    assert fed(guard, "......ffff") == [GuardState.TAKEN_OVER]
    asked = [policy.choose("x") for _ in range(8)]
    overruled = (policy.round_robin, "fallback_limit")
    assert asked == [overruled] * 3 + [(policy.scheduler, "")] + [overruled] * 3 + [(policy.scheduler, "")]
    assert fed(guard, "..f..") == []
    assert guard.state is GuardState.TAKEN_OVER
    assert fed(guard, ".") == [GuardState.NORMAL]
    assert all(guard.allows() for _ in range(10))
    assert guard.rate == 0.0


def test_an_operator_can_reset_the_guard() -> None:
    guard = FallbackGuard(least=1)
    assert fed(guard, "f") == [GuardState.TAKEN_OVER]
    guard.reset()
    assert guard.state is GuardState.NORMAL
    assert guard.allows()


class Reversed:
    """A user's scheduler."""

    name = "reversed"

    def rank(self, *_: object) -> object:
        raise NotImplementedError


class Unnamed:
    def rank(self, *_: object) -> object:
        raise NotImplementedError


def test_schedulers_are_found_by_name_or_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(scheduler_from_path("rts"), RTS)
    assert isinstance(scheduler_from_path("round-robin"), RoundRobin)
    assert isinstance(scheduler_from_path("cloudai.scheduling.rts:RTS"), RTS)
    monkeypatch.setitem(__import__("sys").modules, "users_module", __import__("sys").modules[__name__])
    assert scheduler_from_path("users_module:Reversed").name == "reversed"
    with pytest.raises(InvalidRequest, match="scheduler"):
        scheduler_from_path("users_module:Unnamed")


@pytest.mark.parametrize(
    "path", ["", "fifo", "json:", ":RTS", "json:Nothing", "no_such_module:X", "json:JSONDecoder"]
)
def test_a_scheduler_that_cannot_be_made_is_refused_by_name(path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        scheduler_from_path(path)
    assert (refused.value.field, refused.value.given) == ("scheduler", path)
