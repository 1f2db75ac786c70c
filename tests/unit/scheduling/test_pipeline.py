"""The placement pipeline from request to decision record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.scheduling.decision import Decision, Outcome, read_record
from cloudai.scheduling.errors import CannotDecide, InvalidRequest
from cloudai.scheduling.feasibility import could_ever_hold, explain_node
from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.pipeline import Placer
from cloudai.scheduling.policies import FallbackGuard, GuardState, SchedulerPolicy
from cloudai.scheduling.requests import Resources, TaskRequest
from cloudai.scheduling.rts import RTS
from cloudai.scheduling.scheduler import Context, Ranking
from cloudai.scheduling.snapshot import FleetSnapshot
from cloudai.scheduling.task_types import TaskType

NOW = 1_000.0
GIB = 1 << 20
TASK = TaskRequest(Resources(2000, 4 * GIB), TaskType.CPU_LIGHT)
SETTINGS: dict[str, Any] = {
    "scheduler": "rts",
    "rts_enabled": True,
    "rollout_percent": 100.0,
    "explore_percent": 0.0,
    "staleness_s": 10.0,
    "candidates": 5,
    "fallback_alert": 0.1,
    "fallback_limit": 0.3,
}


class Scripted:
    """A scheduler that does what the test says."""

    name = "scripted"

    def __init__(self, ranking: Ranking | Exception) -> None:
        self.ranking = ranking

    def rank(self, *_: object) -> Ranking:
        if isinstance(self.ranking, Exception):
            raise self.ranking
        return self.ranking


def placer(**settings: Any) -> Placer:
    return Placer.from_settings(SimpleNamespace(**(SETTINGS | settings)))


def test_a_task_is_placed_on_the_best_node_and_the_record_says_why(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    fleet = (
        node("busy", pressure=0.5, version=11),
        node("idle"),
        node("full", cpu_available=1000),
        node("gone", heartbeat=NOW - 60),
    )
    parameters = GAParams(affinity={"cpu-light": {"busy": 0.25}}, penalty={"idle": 0.125}, version=3)
    decision = placer().decide("t1", TASK, context(*fleet, parameters=parameters, slack_s=10.0))
    assert decision.outcome is Outcome.PLACE
    assert decision.candidates == ["idle", "busy"]
    assert decision.predicted_s == pytest.approx(10 * (1 + 0.1 * 0.25 + 0.1 * 0.125))
    assert decision.candidate_features() == [("idle", "[0.25,0.125,0,0]"), ("busy", "[0.25,0.125,0,0.5]")]
    assert read_record(decision.to_record()) == {
        "outcome": "place",
        "decided_at": NOW,
        "tau_s": 10,
        "slack_s": 10,
        "snapshot_version": 11,
        "parameters_version": 3,
        "scheduler": "rts",
        "exploratory": False,
        "fallback_reason": "",
        "fallback_detail": "",
        "why_never": "",
        "refusals": {"cpu": 1, "stale": 1},
        "candidates": [
            {
                "node": "idle",
                "cpu_ratio": 0.25,
                "memory_ratio": 0.125,
                "gpu_ratio": 0,
                "load": 0,
                "predicted_s": 10.375,
                "score": pytest.approx(10 * 0.375 - 0.25 + 0.125),
                "lateness": 0.375,
                "affinity": 0.25,
                "penalty": 0.125,
                "base_risk": pytest.approx(3.75),
            },
            {
                "node": "busy",
                "cpu_ratio": 0.25,
                "memory_ratio": 0.125,
                "gpu_ratio": 0,
                "load": 0.5,
                "predicted_s": 11.375,
                "score": pytest.approx(10 * 1.375 + 0.5 - 0.25),
                "lateness": 1.375,
                "affinity": 0.25,
                "penalty": 0,
                "base_risk": pytest.approx(14.25),
            },
        ],
    }


def test_cannot_now_and_cannot_ever_are_different_answers(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    waits = placer().decide("t1", TASK, context(node("a", cpu_available=0)))
    assert (waits.outcome, waits.refusals, waits.predicted_s) == (Outcome.WAIT, {"cpu": 1}, None)
    huge = TaskRequest(Resources(64_000, GIB), TaskType.CPU_HEAVY)
    never = placer().decide("t2", huge, context(node("a")))
    assert never.outcome is Outcome.NEVER
    assert never.why_never.startswith(
        "no node can ever hold cpu 64, memory 1 GiB; nearest to it is a with cpu 8"
    )
    assert read_record(never.to_record())["why_never"] == never.why_never
    # A fleet without nodes may get some.
    assert placer().decide("t3", huge, context()).outcome is Outcome.WAIT


@given(
    st.from_type(FleetSnapshot),
    st.from_type(TaskRequest),
    st.from_type(GAParams),
    st.sampled_from(["rts", "round-robin"]),
    st.sampled_from(["t1", "t2", "t3"]),
)
def test_only_feasible_nodes_are_candidates_and_every_record_can_be_read(
    snapshot: FleetSnapshot, task: TaskRequest, parameters: GAParams, scheduler: str, task_id: str
) -> None:
    context = Context(snapshot, parameters, tau=10.0, slack_s=15.0, now=NOW)
    decision = placer(scheduler=scheduler).decide(task_id, task, context)
    rows = range(len(snapshot))
    names = {
        snapshot.names[row]
        for row in rows
        if not explain_node(task, snapshot, row, now=NOW, staleness_s=10.0, task_id=task_id)
    }
    assert set(decision.candidates) <= names
    assert len(decision.candidates) == min(5, len(names))
    assert sum(decision.refusals.values()) + len(names) == len(snapshot)
    if names:
        assert decision.outcome is Outcome.PLACE
        assert decision.scheduler == scheduler
    else:
        never = len(snapshot) > 0 and not could_ever_hold(task, snapshot).any()
        assert decision.outcome is (Outcome.NEVER if never else Outcome.WAIT)
    record = read_record(decision.to_record())
    assert [candidate["node"] for candidate in record["candidates"]] == list(decision.candidates)
    for candidate, features, runtime in zip(
        record["candidates"], decision.features, decision.runtimes, strict=True
    ):
        assert candidate["predicted_s"] == pytest.approx(runtime, rel=1e-5)
        ratios = [candidate[name] for name in ("cpu_ratio", "memory_ratio", "gpu_ratio", "load")]
        assert ratios == pytest.approx(features, rel=1e-4)
    for _, text in decision.candidate_features():
        assert len(json.loads(text)) == 4


def test_a_fallback_decides_by_round_robin_and_gives_its_reason(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    here = placer()
    over = context(node("a"), node("b"), parameters=None)
    decisions = [here.decide("t", TASK, over) for _ in range(3)]
    assert [decision.candidates[0] for decision in decisions] == ["a", "b", "a"]
    first = decisions[0]
    assert (first.scheduler, first.fallback_reason) == ("round-robin", "no_parameters")
    assert first.runtimes == [10.0, 10.0]
    assert first.parameters_version == 0
    assert read_record(first.to_record())["fallback_reason"] == "no_parameters"


def test_telemetry_that_is_not_known_is_null_in_the_record(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    decision = placer().decide("t", TASK, context(node("nan-inf", pressure=math.nan)))
    assert decision.fallback_reason == "no_usable_telemetry"
    assert decision.predicted_s == 10.0
    assert decision.candidate_features() == [("nan-inf", "[0.25,0.125,0,null]")]
    assert read_record(decision.to_record())["candidates"][0]["load"] is None


@pytest.mark.parametrize(
    ("ranking", "reason", "detail"),
    [
        (CannotDecide("my_reason"), "my_reason", ""),
        (KeyError("x"), "internal_error", "KeyError: 'x'"),
        (Ranking(rows=[0], scores=[math.nan]), "not_finite", ""),
        (Ranking(rows=[0, 2], scores=[-math.inf, 1.0]), "not_finite", ""),
        (Ranking(rows=[]), "internal_error", "scripted must rank feasible rows"),
        (Ranking(rows=[1]), "internal_error", "it gave [1]"),
        (Ranking(rows=[-1]), "internal_error", "it gave [-1]"),
        (Ranking(rows=[7]), "internal_error", "it gave [7]"),
        (Ranking(rows=[0, 0]), "internal_error", "it gave [0, 0]"),
        (Ranking(rows=[0], scores=[1.0, 2.0]), "internal_error", "as many scores"),
        (None, "internal_error", "AttributeError"),
    ],
)
def test_what_a_scheduler_of_the_user_s_does_wrong_is_a_fallback(
    node: Callable[..., NodeState],
    context: Callable[..., Context],
    ranking: Any,
    reason: str,
    detail: str,
) -> None:
    here = Placer(SchedulerPolicy(Scripted(ranking)))
    decision = here.decide("t", TASK, context(node("a"), node("b", accepting=False), node("c")))
    assert decision.outcome is Outcome.PLACE
    assert decision.candidates == ["a", "c"]
    assert (decision.scheduler, decision.fallback_reason) == ("round-robin", reason)
    assert detail in decision.fallback_detail


def test_a_scheduler_of_the_user_s_decides_with_its_own_terms(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    ranking = Ranking(
        rows=np.array([2, 0, 1]),
        scores=np.array([1.0, 2.0, math.nan]),
        terms={"cost": np.array([3.0, 4.0, 5.0])},
    )
    decision = Placer(SchedulerPolicy(Scripted(ranking))).decide("t", TASK, context(*map(node, "abc")))
    assert decision.candidates == ["c", "a"]
    assert decision.scheduler == "scripted"
    record = read_record(decision.to_record())
    assert [candidate["cost"] for candidate in record["candidates"]] == [3, 4]
    assert decision.predicted_s == pytest.approx(10 * (1 + 0.1 * 0.25 + 0.1 * 0.125))


def test_too_many_fallbacks_hand_over_to_round_robin_and_the_way_back_is_found(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    guard = FallbackGuard(window=20, least=10, probe_every=2, probes=2)
    here = Placer(SchedulerPolicy(RTS(), guard=guard))
    blind, seeing = context(node("a"), parameters=None), context(node("a"))
    events = [here.decide("t", TASK, blind).guard_event for _ in range(10)]
    assert events == [None] * 9 + [GuardState.TAKEN_OVER]
    assert here.decide("t", TASK, seeing).fallback_reason == "fallback_limit"
    assert here.decide("t", TASK, seeing).scheduler == "rts"
    assert here.decide("t", TASK, seeing).fallback_reason == "fallback_limit"
    assert here.decide("t", TASK, seeing).guard_event is GuardState.NORMAL
    assert here.decide("t", TASK, seeing).scheduler == "rts"


def test_settings_choose_scheduler_rollout_and_candidates(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    over = context(*map(node, "abc"))
    assert placer(rts_enabled=False).decide("t", TASK, over).scheduler == "round-robin"
    assert placer(rollout_percent=0).decide("t", TASK, over).scheduler == "round-robin"
    assert placer(rts_enabled=False).decide("t", TASK, over).fallback_reason == ""
    assert len(placer(candidates=2).decide("t", TASK, over).candidates) == 2
    with pytest.raises(InvalidRequest, match="scheduler"):
        placer(scheduler="no_such_module:X")


def test_a_node_held_for_a_task_takes_that_task(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    over = context(node("a", held_for="large"))
    assert placer().decide("large", TASK, over).outcome is Outcome.PLACE
    other = placer().decide("small", TASK, over)
    assert (other.outcome, other.refusals) == (Outcome.WAIT, {"held": 1})


@pytest.mark.parametrize("text", ["[]", "{}", '{"v":2}', "", "nonsense"])
def test_a_text_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"record|Expecting"):
        read_record(text)


def test_names_are_quoted_in_the_record(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    name = 'n"1\\\n\u00e4'
    decision: Decision = placer().decide("t", TASK, context(node(name)))
    assert read_record(decision.to_record())["candidates"][0]["node"] == name
