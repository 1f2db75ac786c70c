"""What an epoch learns from a history whose truth is known, and from histories that say little or nothing."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import geometric_mean
from typing import Any

import pytest

from cloudai.history.records import TaskHistory, WorkerStats
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.task_types import TASK_TYPES
from cloudai_beat.statistics import Refreshed, refresh
from cloudai_beat.synthetic import Truth, synthetic_history

TRUTH = (0.1, 0.1, 0.3, 0.2)
#: Far from the truth, so that what is found was learned.
OTHER = GAParams(theta1=1.0, theta2=0.5, theta3=0.0, theta4=0.6)
SPEEDS = {"fast": 0.5, "usual": 1.0, "slow": 2.0}


def learned(truth: Truth, records: int = 6000, seed: int = 1, in_force: GAParams = OTHER) -> Refreshed:
    return refresh(*synthetic_history(truth, records, seed=seed), in_force)


def theta_of(parameters: GAParams) -> tuple[float, ...]:
    return parameters.theta1, parameters.theta2, parameters.theta3, parameters.theta4


# --- theta and base


@pytest.mark.parametrize(
    "speeds", [{"a": 1.0, "b": 1.0}, {"a": 0.5, "b": 1.0, "c": 2.0}], ids=["equal", "unequal"]
)
def test_theta_without_noise_is_exact(speeds):
    found = learned(Truth(theta=TRUTH, speeds=speeds, noise=0.0), records=2000)
    assert theta_of(found.parameters) == pytest.approx(TRUTH, rel=1e-3)
    assert found.theta.kept == ""
    assert found.theta.records == 2000


def test_theta_with_noise_is_within_a_tenth_of_the_truth():
    found = learned(Truth(theta=TRUTH, speeds=SPEEDS, noise=0.05), records=10_000)
    assert theta_of(found.parameters) == pytest.approx(TRUTH, rel=0.1)


def test_base_and_theta_together_give_the_mean_runtime_back():
    history, workers = synthetic_history(Truth(theta=TRUTH, speeds=SPEEDS, noise=0.0), 3000, seed=3)
    p = refresh(history, workers, OTHER).parameters
    theta = theta_of(p)
    for kind in map(str, TASK_TYPES):
        of_type = [record for record in history if record.task_type == kind]
        # What tau would be: the mean runtime on the reference node.
        tau = sum(r.actual_runtime / p.speed[kind][r.worker_id] for r in of_type) / len(of_type)
        for record in of_type[:20]:
            bracket = 1 + sum(t * x for t, x in zip(theta, record.features, strict=True))
            predicted = tau * p.base[kind] * p.speed[kind][record.worker_id] * bracket
            assert predicted == pytest.approx(record.actual_runtime, rel=0.02)


def test_a_feature_that_never_varies_keeps_its_weight():
    history, workers = synthetic_history(Truth(noise=0.1), 3000, seed=4)
    without_gpu = [
        replace(record, features=(*record.features[:2], 0.0, record.features[3]))
        for record in history
        if not record.gpu
    ]
    p = refresh(without_gpu, workers, replace(OTHER, theta3=0.77)).parameters
    assert p.theta3 == pytest.approx(0.77)
    assert p.theta4 == pytest.approx(0.2, abs=0.05)


def test_a_few_noisy_records_move_theta_little_and_many_move_it_all_the_way():
    truth = Truth(theta=TRUTH, noise=0.6)
    few, many = (learned(truth, records).parameters for records in (150, 10_000))
    off = [max(abs(t - o) for t, o in zip(theta_of(p), TRUTH, strict=True)) for p in (few, many)]
    assert off[1] < off[0]
    assert max(theta_of(few)) < 2.0


# --- speed


def test_declared_speeds_are_recovered():
    p = learned(Truth(speeds=SPEEDS, noise=0.3), records=4000).parameters
    mean = geometric_mean(SPEEDS.values())
    for kind in map(str, TASK_TYPES):
        for node, declared in SPEEDS.items():
            assert p.speed[kind][node] == pytest.approx(declared / mean, rel=0.1)


def test_a_pair_of_its_own_speed_is_found_beside_its_nodes():
    truth = Truth(speeds=SPEEDS, own={"gpu-training": {"slow": 0.4}}, noise=0.2)
    p = learned(truth, records=6000).parameters
    of_type = p.speed["gpu-training"]
    assert of_type["slow"] / of_type["usual"] == pytest.approx(2 * 0.4, rel=0.1)
    others = p.speed["cpu-heavy"]
    assert others["slow"] / others["usual"] == pytest.approx(2, rel=0.1)


def test_a_pair_with_few_records_has_its_nodes_speed():
    history, workers = synthetic_history(Truth(speeds=SPEEDS, noise=0.2), 2000, seed=5)
    of_pair = [r for r in history if (r.task_type, r.worker_id) == ("mixed", "slow")]
    # Two records of it are left, and both were ten times too slow by some accident.
    rest = [r for r in history if r not in of_pair]
    accidents = [
        replace(r, actual_runtime=10 * r.actual_runtime, actual_finish=r.actual_finish + 9 * r.actual_runtime)
        for r in of_pair[:2]
    ]
    slow = refresh([*rest, *accidents], workers, GAParams()).parameters.speed
    assert slow["mixed"]["slow"] < 2.5 * slow["cpu-light"]["slow"]
    never = refresh(rest, workers, GAParams()).parameters.speed
    assert never["mixed"]["slow"] == pytest.approx(never["cpu-light"]["slow"], rel=0.15)


# --- affinity and penalty


def test_the_six_rows_are_always_there():
    history, workers = synthetic_history(Truth(speeds=SPEEDS), 500, seed=6)
    only = [record for record in history if record.task_type == "cpu-light"]
    for records in (history, only):
        p = refresh(records, workers, GAParams()).parameters
        assert set(p.affinity) == set(map(str, TASK_TYPES))
        assert all(set(row) == set(SPEEDS) for row in p.affinity.values())


def test_affinity_puts_the_nodes_of_a_type_in_the_order_of_their_speed():
    truth = Truth(speeds={"a": 1.0, "b": 0.5, "c": 3.0, "d": 2.0}, noise=0.3)
    p = learned(truth, records=3000).parameters
    for row in p.affinity.values():
        assert sorted(row, key=row.__getitem__, reverse=True) == ["b", "a", "d", "c"]


def test_affinity_is_the_formula_of_its_terms():
    history = [job(i, node="a", runtime=2.0) for i in range(20)]
    history += [job(100 + i, node="b", runtime=6.0, late=i < 5, overload=1.5) for i in range(20)]
    p = refresh(history, [], GAParams()).parameters
    # Mean of the type 4 s; a: twice as fast, never late. b: 4/6, 5 of 20 late, a quarter of its time overloaded.
    assert p.affinity["mixed"]["a"] == pytest.approx(1 * 2 + 2 * 1, rel=1e-3)
    assert p.affinity["mixed"]["b"] == pytest.approx(4 / 6 + 2 * 0.75 - 0.5 * 0.25, rel=1e-3)


def test_an_unreliable_node_is_penalised_and_liked_less():
    truth = Truth(speeds={"good": 1.0, "bad": 1.0}, failures={"bad": 0.4})
    p = learned(truth).parameters
    assert p.penalty["bad"] > p.penalty["good"] + 0.5
    assert all(row["bad"] < row["good"] for row in p.affinity.values())


def test_the_penalty_is_the_formula_of_its_terms():
    node = WorkerStats(
        worker_id="a", tasks_run=100, sla_violations=25, total_runtime=0.0, cpu_used_total=2000.0,
        mem_used_total=4000.0, gpu_used_total=0.0, overload_time=50.0, total_time=1000.0, cpu=4.0, memory=8.0,
    )  # fmt: skip
    history = [job(i) for i in range(40)]
    p = refresh(history, [node], GAParams()).parameters
    energy = (2000 + 0.1 * 4000) / ((4 + 0.1 * 8) * 1000)
    assert p.penalty["a"] == pytest.approx(2 * 0.25 + 1 * 0.05 + 0.5 * energy, rel=1e-3)


def test_a_pair_with_few_tasks_stands_between_its_own_figure_and_its_types_mean():
    history = [job(i, node="a", runtime=4.0) for i in range(40)]
    history += [job(100 + i, node="b", runtime=4.0, late=True) for i in range(2)]
    found = refresh(history, [], GAParams())
    row = found.parameters.affinity["mixed"]
    assert row["a"] - 2.0 < row["b"] < row["a"]
    assert any("mixed on b (2)" in line for line in found.kept)


# --- too little, and bad


def test_under_thirty_completions_everything_stays_and_that_is_said():
    history, workers = synthetic_history(Truth(), 29, seed=7)
    found = refresh(history, workers, OTHER)
    assert found.parameters == OTHER
    assert not found.enough
    assert "29 completions" in found.kept[0]


def test_types_with_too_little_data_are_named():
    history, workers = synthetic_history(Truth(), 600, seed=8)
    few = [r for r in history if r.task_type != "gpu-training"]
    few += [r for r in history if r.task_type == "gpu-training"][:3]
    found = refresh(few, workers, replace(OTHER, base={"gpu-training": 0.7}))
    assert any("gpu-training (3)" in line for line in found.kept)
    assert found.samples["gpu-training"] == 3
    assert found.parameters.base["gpu-training"] == 0.7


@pytest.mark.parametrize("only", ["one node", "one type", "one of each"])
def test_one_node_or_one_type_is_enough_to_learn_from(only):
    history, workers = synthetic_history(Truth(noise=0.1), 4000, seed=9)
    if only != "one type":
        history = [record for record in history if record.worker_id == "node-00"]
    if only != "one node":
        history = [record for record in history if record.task_type == "mixed"]
    p = refresh(history, workers, GAParams()).parameters
    assert all(math.isfinite(value) for value in theta_of(p))
    assert p.speed["mixed"]["node-00"] == pytest.approx(1.0, rel=0.1)
    assert len(p.affinity) == 6


def test_numbers_that_are_none_and_clocks_that_jump_are_left_out_and_counted():
    history, workers = synthetic_history(Truth(speeds=SPEEDS, noise=0.05), 6000, seed=10)
    bad = [
        {"actual_runtime": math.nan},
        {"actual_runtime": -3.0},
        {"actual_runtime": 1e9},
        {"actual_finish": math.inf},
        {"features": (math.nan, 0.0, 0.0, 0.0)},
        {"features": (0.0, 1e9, 0.0, 0.0)},
        {"overload_time": math.nan},
        {"actual_runtime": None},
        {"task_type": "dl"},
    ]
    spoilt: list[TaskHistory] = [replace(r, **change) for r, change in zip(history, bad * 20, strict=False)]
    nodes = [replace(workers[0], total_time=math.nan, cpu_used_total=math.inf), *workers[1:]]
    found = refresh([*history, *spoilt], nodes, OTHER)
    assert theta_of(found.parameters) == pytest.approx(TRUTH, rel=0.15)
    assert found.skipped["a runtime longer than the task was there: a clock jumped"] == 20
    assert found.skipped["a runtime that is not finite and positive"] == 40
    assert found.skipped["an unknown task type"] == 20
    assert all(value >= 0 for value in found.parameters.penalty.values())


def test_a_node_that_left_long_ago_is_dropped_and_one_that_only_rests_is_kept():
    in_force = GAParams(
        affinity={"mixed": {"gone": 3.0, "resting": 2.0}},
        speed={"mixed": {"resting": 2.0}},
        penalty={"gone": 1.0},
    )
    history, workers = synthetic_history(Truth(), 300, seed=11)
    found = refresh(history, workers, in_force, present=["resting"])
    p = found.parameters
    assert "gone" not in p.affinity["mixed"]
    assert "gone" not in p.penalty
    assert (p.affinity["mixed"]["resting"], p.speed["mixed"]["resting"]) == (2.0, 2.0)
    assert any("gone" in line for line in found.kept)


def test_the_same_window_gives_the_same_parameters_in_any_order():
    history, workers = synthetic_history(Truth(speeds=SPEEDS), 1000, seed=12)
    assert (
        refresh(history, workers, OTHER).parameters == refresh(history[::-1], workers[::-1], OTHER).parameters
    )


def test_an_empty_history_is_too_little():
    found = refresh([], [], OTHER)
    assert found.parameters == OTHER
    assert found.samples == dict.fromkeys(map(str, TASK_TYPES), 0)


def job(
    number: int,
    *,
    node: str = "a",
    runtime: float = 4.0,
    late: bool = False,
    overload: float = 0.0,
    **more: Any,
) -> TaskHistory:
    arrival = 1.7e9 + 10.0 * number
    return TaskHistory(
        task_id=f"job-{number}", attempt=1, worker_id=node, task_type="mixed", outcome="succeeded", final=True,
        arrival_time=arrival, deadline=arrival + 8.0, actual_start=arrival, actual_finish=arrival + runtime,
        actual_runtime=runtime, sla_success=not late, overload_time=overload, features=(0.1, 0.1, 0.0, 0.2), **more,
    )  # fmt: skip


def test_families_of_one_type_that_take_unequal_times_do_not_hide_the_speed_of_nodes():
    chance = random.Random(5)
    history = []
    for i in range(120):
        # Long jobs on one node mostly, short ones on the other: by type alone "b" would look slow.
        family, node = chance.choice(
            [("long", "b"), ("long", "b"), ("short", "b"), ("short", "a"), ("short", "a"), ("long", "a")]
        )
        runtime = (
            (6.0 if family == "long" else 1.0) * (1.0 if node == "a" else 0.5) * chance.uniform(0.9, 1.1)
        )
        history.append(job(i, node=node, runtime=runtime, family=family))
    speed = refresh(history, [], GAParams()).parameters.speed["mixed"]
    assert speed["b"] / speed["a"] == pytest.approx(0.5, rel=0.1)
