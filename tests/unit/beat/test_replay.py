from __future__ import annotations

import numpy as np
import pytest

from cloudai.scheduling.parameters import GAParams
from cloudai_beat.replay import (
    POLICIES,
    Environment,
    Fleet,
    InvalidReplay,
    Options,
    Outcome,
    ReplayParameters,
    Workload,
    replay,
)

#: The first replay of a machine compiles the engine.
pytestmark = pytest.mark.timeout(600)


def crowded(seed: int = 1, count: int = 3000, nodes: int = 8) -> tuple[Workload, Fleet, Environment]:
    """More work at times than the fleet can take, with shares of GPUs, on nodes of unequal size and speed."""
    chance = np.random.default_rng(seed)
    gpu = chance.choice([0, 250, 500, 1000, 2000], count, p=[0.6, 0.1, 0.1, 0.15, 0.05])
    runtime = chance.lognormal(2, 1, count)
    arrival = np.cumsum(chance.exponential(0.9, count))
    workload = Workload.of(
        arrival,
        runtime,
        arrival + chance.uniform(1.5, 2.5, count) * runtime,
        chance.integers(0, 6, count),
        cpu_milli=chance.choice([500, 1000, 4000], count),
        memory_kib=chance.choice([1, 2, 8], count) << 20,
        gpu_milli=gpu,
        storage_kib=chance.choice([0, 1 << 20], count),
        family=chance.integers(-1, 20, count),
        limit=np.where(chance.random(count) < 0.2, 3 * runtime, np.inf),
    )
    fleet = Fleet.of(
        chance.choice([4000, 8000, 16000], nodes),
        memory_kib=chance.choice([16, 32], nodes) << 20,
        gpus=chance.choice([0, 2, 4], nodes) | np.r_[2, np.zeros(nodes - 1, int)],
        storage_kib=8 << 20,
        slots=6,
    )
    environment = Environment(
        factor=chance.lognormal(0, 0.5, (6, nodes)),
        noise=chance.lognormal(0, 0.1, count),
        contention=np.array([0.1, 0.1, 0.3, 0.2]),
        cpu_use=np.array([1, 1, 1, 1, 1.5, 0.5]),
    )
    return workload, fleet, environment


def run(scene: tuple[Workload, Fleet, Environment], policy: str = "rts") -> Outcome:
    workload, fleet, environment = scene
    return replay(workload, fleet, environment, ReplayParameters.of(GAParams(), fleet), Options(policy=policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_each_task_runs_once_and_no_capacity_is_ever_exceeded(policy: str) -> None:
    workload, fleet, environment = crowded()
    outcome = run((workload, fleet, environment), policy)
    assert outcome.decisions == len(workload)
    assert (outcome.start >= workload.arrival).all()
    assert (outcome.finish > outcome.start).all()
    for node in range(len(fleet)):
        here = outcome.node == node
        for amount, capacity in (
            (workload.cpu_milli, fleet.cpu_milli),
            (workload.memory_kib, fleet.memory_kib),
            (workload.gpu_milli, fleet.gpus * 1000),
            (workload.storage_kib, fleet.storage_kib),
            (np.ones(len(workload), dtype=int), fleet.slots),
        ):
            times = np.concatenate([outcome.finish[here], outcome.start[here]])
            steps = np.concatenate([-amount[here], amount[here]])
            in_use = np.cumsum(steps[np.lexsort((steps, times))])
            assert in_use.max(initial=0) <= capacity[node]
            assert in_use[-1:].sum() == 0


def test_the_same_arguments_give_the_same_outcome() -> None:
    scene = crowded()
    first, second = run(scene), run(scene)
    assert (first.finish == second.finish).all()
    assert (first.node == second.node).all()
    assert (first.speed == second.speed).all()


def test_one_task_on_one_node_runs_as_long_as_it_takes_there() -> None:
    one = np.ones(1)
    workload = Workload.of(5 * one, 10 * one, 40 * one, np.zeros(1, int), cpu_milli=np.full(1, 1000))
    fleet = Fleet.of(np.full(1, 2000))
    environment = Environment(factor=np.full((6, 1), 3.0), noise=one, contention=np.array([0.2, 0, 0, 0]))
    outcome = run((workload, fleet, environment))
    assert outcome.start == 5
    # half of the free CPU is asked for: 10 s * 3 * (1 + 0.2 * 0.5)
    assert outcome.finish == pytest.approx(38)
    assert outcome.miss_rate == 0
    assert outcome.used[0] == pytest.approx(33)
    assert outcome.utilisation == pytest.approx(0.5 / 3)


def test_a_task_that_no_node_can_hold_misses_and_nothing_else_does() -> None:
    workload = Workload.of(np.zeros(2), np.ones(2), np.full(2, 9.0), np.zeros(2, int), cpu_milli=np.array([9000, 1000]))
    fleet = Fleet.of(np.full(2, 2000))
    for policy in POLICIES:
        outcome = run((workload, fleet, Environment.plain(workload, fleet)), policy)
        assert outcome.missed.tolist() == [True, False]
        assert outcome.node[0] == -1


def test_no_tasks_are_no_error() -> None:
    none = np.zeros(0)
    workload = Workload.of(none, none, none, none.astype(int), cpu_milli=none.astype(int))
    fleet = Fleet.of(np.full(2, 2000))
    outcome = run((workload, fleet, Environment.plain(workload, fleet)))
    assert outcome.miss_rate == 0
    assert outcome.utilisation == 0


def test_a_constraint_keeps_tasks_to_the_nodes_that_match() -> None:
    count = 50
    workload = Workload.of(
        np.arange(count) / 10, np.full(count, 5.0), np.full(count, 99.0), np.zeros(count, int),
        cpu_milli=np.full(count, 1000), constraint=np.arange(count) % 2,
    )  # fmt: skip
    fleet = Fleet.of(np.full(3, 4000), allowed=np.array([[True, True, True], [False, True, False]]))
    for policy in POLICIES:
        outcome = run((workload, fleet, Environment.plain(workload, fleet)), policy)
        assert (outcome.node[1::2] == 1).all()


def test_what_cannot_be_replayed_is_named() -> None:
    one = np.ones(1)
    with pytest.raises(InvalidReplay, match="runtime"):
        Workload.of(one, -one, one, np.zeros(1, int), cpu_milli=np.ones(1, int))
    with pytest.raises(InvalidReplay, match="gpu_milli"):
        Workload.of(one, one, one, np.zeros(1, int), cpu_milli=np.ones(1, int), gpu_milli=1500)
    with pytest.raises(InvalidReplay, match="ascending"):
        Fleet.of(np.ones(2, int), names=("b", "a"))
    with pytest.raises(InvalidReplay, match="policy"):
        run(crowded(count=10), "best")
