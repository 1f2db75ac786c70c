from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.scheduling.feasibility import (
    REASONS,
    Reason,
    could_ever_hold,
    explain_node,
    largest_node,
    matching,
    why_never,
)
from cloudai.scheduling.filtering import Filter
from cloudai.scheduling.nodes import UNAVAILABLE, NodeState
from cloudai.scheduling.requests import RequestDefaults, Resources, TaskRequest, parse_request
from cloudai.scheduling.snapshot import BoolArray, FleetSnapshot
from cloudai.scheduling.task_types import TaskType

NOW = 1_000.0
STALENESS = 10.0
GIB = 1 << 20
SMALL = TaskRequest(Resources(1000, GIB), TaskType.CPU_LIGHT)


def feasible(task: TaskRequest, snapshot: FleetSnapshot, task_id: str = "") -> BoolArray:
    return Filter().verdict(task_id, task, snapshot, NOW, STALENESS).feasible


def explained(task: TaskRequest, snapshot: FleetSnapshot, task_id: str = "") -> list[list[Reason]]:
    rows = range(len(snapshot))
    every = [
        explain_node(task, snapshot, row, now=NOW, staleness_s=STALENESS, task_id=task_id) for row in rows
    ]
    return [[refusal.reason for refusal in refusals] for refusals in every]


STEPS = st.lists(
    st.lists(st.from_type(NodeState), max_size=3) | st.sampled_from("abcdef"), min_size=1, max_size=6
)


@given(STEPS, st.lists(st.from_type(TaskRequest), min_size=1, max_size=2), st.sampled_from(["", "t1"]))
def test_kept_verdicts_stay_true_while_the_fleet_changes(
    steps: list[list[NodeState] | str], tasks: list[TaskRequest], task_id: str
) -> None:
    kept = Filter()
    snapshot = FleetSnapshot()
    for step in steps:
        if isinstance(step, str):
            snapshot.remove(step)
        else:
            snapshot.apply(step)
        for task in tasks:
            verdict = kept.verdict(task_id, task, snapshot, NOW, STALENESS)
            reasons = explained(task, snapshot, task_id)
            assert verdict.feasible.tolist() == [not of_node for of_node in reasons]
            assert verdict.count == sum(verdict.feasible.tolist())
            firsts = Counter(str(min(of_node, key=REASONS.index)) for of_node in reasons if of_node)
            assert dict(verdict.refusals) == dict(firsts)


@given(st.from_type(FleetSnapshot), st.from_type(TaskRequest))
def test_what_can_hold_now_could_ever(snapshot: FleetSnapshot, task: TaskRequest) -> None:
    ever = could_ever_hold(task, snapshot)
    assert not (feasible(task, snapshot) & ~ever).any()
    for row, state in enumerate(snapshot.states):
        asked = task.resources
        assert ever[row] == (
            state.cpu_capacity >= asked.cpu_milli
            and state.memory_capacity >= asked.memory_kib
            and state.gpu_capacity * 1000 >= asked.gpu_milli
            and state.storage_capacity >= asked.storage_kib
            and state.slots_capacity >= 1
            and all(state.labels.get(label) == value for label, value in task.constraints)
            and task.target_worker_id in (None, state.name)
        )


@pytest.mark.parametrize(
    ("fields", "reason", "have"),
    [
        ({"accepting": False}, "not_accepting", "draining or silent"),
        ({"accepting": False, "gone": True}, "gone", "down or lost"),
        ({"heartbeat": NOW - 11}, "stale", "11.0 s ago"),
        ({"held_for": "t9"}, "held", "held for task t9"),
        ({"cpu_available": 999}, "cpu", "0.999 cores"),
        ({"memory_available": GIB // 2}, "memory", "0.5 GiB"),
        ({"slots_available": 0}, "slots", "0 free slots"),
    ],
)
def test_a_refusal_says_what_the_node_has(
    node: Callable[..., NodeState], fields: dict[str, object], reason: str, have: str
) -> None:
    snapshot = FleetSnapshot([node("a", **fields)])
    refusals = explain_node(SMALL, snapshot, 0, now=NOW, staleness_s=STALENESS)
    assert [(refusal.reason, refusal.have) for refusal in refusals] == [(reason, have)]
    assert not feasible(SMALL, snapshot).any()


def test_every_reason_of_a_node_is_given(node: Callable[..., NodeState]) -> None:
    task = parse_request(
        {"cpu": 64, "gpu": 0.75, "storage": 1},
        target_worker_id="z",
        constraints={"zone": "x"},
        now=NOW,
        defaults=RequestDefaults(),
    )
    snapshot = FleetSnapshot([node("a", gpu_capacity=2, gpu_free=(500, 500), labels={"zone": "y"})])
    refusals = explain_node(task, snapshot, 0, now=NOW, staleness_s=STALENESS)
    assert [(refusal.reason, refusal.need, refusal.have) for refusal in refusals] == [
        ("target", "node z", "node a"),
        ("constraint", "zone=x", "zone=y"),
        ("cpu", "64 cores", "8 cores"),
        ("gpu", "0.75 of one device", "free of each device: 0.5, 0.5"),
        ("storage", "1 GiB", "0 GiB"),
    ]


def test_a_held_node_is_open_to_its_task_only(node: Callable[..., NodeState]) -> None:
    snapshot = FleetSnapshot([node("a", held_for="t1")])
    assert feasible(SMALL, snapshot, "t1").all()
    assert not feasible(SMALL, snapshot, "t2").any()


def test_the_nearest_node_is_named_for_what_can_never_be_held(node: Callable[..., NodeState]) -> None:
    snapshot = FleetSnapshot(
        [
            node("big", cpu_capacity=32_000),
            node("small"),
            node("zoned", cpu_capacity=1000, labels={"zone": "x"}),
        ]
    )
    task = TaskRequest(Resources(64_000, GIB), TaskType.CPU_HEAVY)
    assert largest_node(task, snapshot) == snapshot.index["big"]
    assert why_never(task, snapshot) == (
        "no node can ever hold cpu 64, memory 1 GiB; nearest to it is big with cpu 32, memory 32 GiB, gpu 0, "
        "storage 0 GiB, slots 8"
    )
    zoned = TaskRequest(Resources(64_000, GIB), TaskType.CPU_HEAVY, constraints=(("zone", "x"),))
    assert largest_node(zoned, snapshot) == snapshot.index["zoned"]
    assert "zone=x" in why_never(zoned, snapshot)
    assert largest_node(task, FleetSnapshot()) is None
    assert "no nodes" in why_never(task, FleetSnapshot())


def test_a_node_whose_engine_is_away_can_hold_a_container_job_later(node: Callable[..., NodeState]) -> None:
    task = TaskRequest(Resources(1000, GIB), TaskType.CPU_LIGHT, constraints=(("containers", "yes"), ("zone", "a")))
    snapshot = FleetSnapshot(
        [
            node("away", labels={"containers": UNAVAILABLE, "zone": "a"}),
            node("away elsewhere", labels={"containers": UNAVAILABLE, "zone": "b"}),
            node("here", labels={"containers": "yes", "zone": "a"}),
            node("never", labels={"containers": "no", "zone": "a"}),
        ]
    )
    assert snapshot.names == ["away", "away elsewhere", "here", "never"]
    assert could_ever_hold(task, snapshot).tolist() == [True, False, True, False]
    assert matching(task, snapshot).tolist() == [False, False, True, False]
    assert feasible(task, snapshot).tolist() == [False, False, True, False]
