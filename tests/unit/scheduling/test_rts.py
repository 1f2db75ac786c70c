from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.scheduling.errors import CannotDecide
from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.requests import Resources, TaskRequest
from cloudai.scheduling.rts import RTS, placement_features, predicted_runtime, rts_scores
from cloudai.scheduling.scheduler import Context
from cloudai.scheduling.snapshot import FleetSnapshot
from cloudai.scheduling.task_types import TaskType

NOW = 1_000.0
GIB = 1 << 20
TASK = TaskRequest(Resources(1000, GIB), TaskType.CPU_LIGHT)


def plain_scores(
    task: TaskRequest, node: NodeState, p: GAParams, tau: float, t: float, deadline: float
) -> tuple[float, float, float, float, float]:
    """Section 5 of the specification, word for word, for one node."""

    def ratio(asked: float, available: float) -> float:
        if available == 0:
            return 1.0 if asked > 0 else 0.0
        return asked / available

    asked = task.resources
    L = node.load
    b = p.base.get(task.task_type, 1.0)
    s = p.speed.get(task.task_type, {}).get(node.name, 1.0)
    E = tau * b * s * (
        1
        + p.theta1 * ratio(asked.cpu_milli, node.cpu_available)
        + p.theta2 * ratio(asked.memory_kib, node.memory_available)
        + p.theta3 * ratio(asked.gpu_milli, sum(node.gpu_free))
        + p.theta4 * L
    )  # fmt: skip
    F = t + E
    Delta = max(0.0, F - deadline)
    R = p.alpha * Delta + p.beta * L
    entries = p.affinity.get(task.task_type, {})
    mean = sum(entries.values()) / len(entries) if entries else 0.0
    Rfinal = R - entries.get(node.name, mean) + p.penalty.get(node.name, 0.0)
    return E, F, Delta, R, Rfinal


@given(
    st.from_type(FleetSnapshot),
    st.from_type(TaskRequest),
    st.from_type(GAParams),
    st.floats(0.001, 1e4),
    st.floats(-100, 1e4),
)
def test_scores_are_the_formulas_of_the_specification(
    snapshot: FleetSnapshot, task: TaskRequest, parameters: GAParams, tau: float, slack_s: float
) -> None:
    t = 50.0
    scores = rts_scores(task, snapshot, parameters, tau=tau, slack_s=slack_s)
    for row, state in enumerate(snapshot.states):
        expected = plain_scores(task, state, parameters, tau, t, t + slack_s)
        got = (scores.E[row], scores.F(t)[row], scores.Delta[row], scores.R[row], scores.Rfinal[row])
        scale = 1e-9 * (1 + parameters.alpha) * (1 + expected[0] + abs(slack_s))
        assert got == pytest.approx(expected, rel=1e-9, abs=scale)


@given(st.from_type(FleetSnapshot), st.from_type(TaskRequest), st.from_type(GAParams), st.floats(0.001, 1e4))
def test_the_features_of_a_placement_give_the_same_prediction(
    snapshot: FleetSnapshot, task: TaskRequest, parameters: GAParams, tau: float
) -> None:
    scores = rts_scores(task, snapshot, parameters, tau=tau, slack_s=0.0)
    for row, name in enumerate(snapshot.names):
        features = placement_features(task, snapshot, row)
        predicted = predicted_runtime(features, parameters, task.task_type, name, tau)
        assert predicted == pytest.approx(scores.E[row], rel=1e-9)


@given(
    st.from_type(FleetSnapshot).filter(len),
    st.from_type(TaskRequest),
    st.from_type(GAParams),
    st.floats(-50, 200),
    st.integers(1, 5),
    st.data(),
)
def test_the_lowest_risk_wins_among_the_feasible(
    snapshot: FleetSnapshot,
    task: TaskRequest,
    parameters: GAParams,
    slack_s: float,
    count: int,
    data: st.DataObject,
) -> None:
    asked = task.resources
    able = [
        state.cpu_available >= asked.cpu_milli
        and state.memory_available >= asked.memory_kib
        and state.fits_gpu(asked.gpu_milli)
        for state in snapshot.states
    ]
    chosen = data.draw(st.lists(st.booleans(), min_size=len(snapshot), max_size=len(snapshot)))
    feasible = np.array(able) & np.array(chosen)
    context = Context(snapshot, parameters, tau=10.0, slack_s=slack_s, now=NOW)
    scores = rts_scores(task, snapshot, parameters, tau=10.0, slack_s=slack_s)
    if not feasible.any():
        with pytest.raises(CannotDecide):
            RTS().rank(task, context, feasible, count)
        return
    ranking = RTS().rank(task, context, feasible, count)
    rows = list(ranking.rows)
    assert len(rows) == len(set(rows)) == min(count, int(feasible.sum()))
    assert feasible[rows].all()
    ordered = np.sort(scores.Rfinal[feasible])[: len(rows)]
    np.testing.assert_allclose(ranking.scores, ordered, rtol=1e-9, atol=1e-9 * max(1.0, abs(ordered).max()))
    np.testing.assert_allclose(ranking.runtimes, scores.E[rows], rtol=1e-12)
    np.testing.assert_allclose(ranking.terms["lateness"], scores.Delta[rows], rtol=1e-9, atol=1e-9)


def best(context: Context, count: int = 1, task: TaskRequest = TASK) -> list[str]:
    feasible = np.ones(len(context.snapshot), dtype=np.bool_)
    return [context.snapshot.names[row] for row in RTS().rank(task, context, feasible, count).rows]


def test_ties_go_to_the_lower_runtime_then_to_the_lower_name(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    fleet = [node("d"), node("c"), node("b", cpu_capacity=16_000), node("a"), node("e", pressure=0.1)]
    assert best(context(*fleet), 5) == ["b", "a", "c", "d", "e"]
    assert best(context(*reversed(fleet)), 2) == ["b", "a"]


@pytest.mark.parametrize("size", [7, 64, 1001])
@pytest.mark.parametrize("slack_s", [20.0, 1.0])
def test_equal_nodes_go_by_name_whatever_the_size_of_the_fleet(
    node: Callable[..., NodeState], context: Callable[..., Context], size: int, slack_s: float
) -> None:
    names = [f"n{number:04}" for number in range(size)]
    fleet = [node(name, cpu_available=7777, memory_available=31 * GIB + 7) for name in names]
    assert best(context(*fleet, slack_s=slack_s), 5) == names[:5]


def test_a_late_node_loses_to_one_in_time(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    parameters = GAParams(speed={"cpu-light": {"idle-slow": 4.0}})
    fleet = (node("idle-slow"), node("busy-fast", pressure=0.9))
    assert best(context(*fleet, parameters=parameters)) == ["busy-fast"]
    assert best(context(*fleet, parameters=parameters, slack_s=60.0)) == ["idle-slow"]


def test_affinity_draws_and_penalty_repels(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    fleet = (node("a"), node("b"), node("c"))
    drawn = GAParams(affinity={"cpu-light": {"a": 1.0, "b": 2.0}})
    # c has no entry and takes the mean, 1.5.
    assert best(context(*fleet, parameters=drawn), 3) == ["b", "c", "a"]
    repelled = GAParams(penalty={"a": 1.0})
    assert best(context(*fleet, parameters=repelled), 3) == ["b", "c", "a"]


def test_new_parameters_and_new_nodes_count_at_once(node: Callable[..., NodeState]) -> None:
    rts = RTS()
    snapshot = FleetSnapshot([node("b"), node("c")])
    parameters = GAParams(penalty={"b": 1.0})

    def winner(p: GAParams) -> str:
        feasible = np.ones(len(snapshot), dtype=np.bool_)
        ranking = rts.rank(TASK, Context(snapshot, p, tau=5, slack_s=10, now=NOW), feasible, 1)
        return snapshot.names[ranking.rows[0]]

    assert winner(parameters) == "c"
    assert winner(dataclasses.replace(parameters, penalty={"c": 1.0})) == "b"
    snapshot.apply([node("a")])
    assert winner(dataclasses.replace(parameters, penalty={"c": 1.0})) == "a"
    snapshot.remove("a")
    assert winner(dataclasses.replace(parameters, penalty={"c": 1.0})) == "b"


def test_it_cannot_decide_without_parameters(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    with pytest.raises(CannotDecide, match="no_parameters"):
        best(context(node("a"), parameters=None))


def test_unknown_pressure_everywhere_is_no_usable_telemetry(
    node: Callable[..., NodeState], context: Callable[..., Context]
) -> None:
    blind = node("a", pressure=math.nan)
    with pytest.raises(CannotDecide, match="no_usable_telemetry"):
        best(context(blind))
    assert best(context(blind, node("b", pressure=0.9)), 5) == ["b"]


@pytest.mark.parametrize("tau", [math.nan, math.inf])
def test_a_tau_that_is_not_finite_is_not_decided_on(
    node: Callable[..., NodeState], context: Callable[..., Context], tau: float
) -> None:
    with pytest.raises(CannotDecide, match="not_finite"):
        best(context(node("a"), node("b"), tau=tau))
