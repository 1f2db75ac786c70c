"""The policies that push each task to a node's queue on arrival: which node they choose."""

from __future__ import annotations

import numpy as np
import pytest

from cloudai.scheduling.parameters import GAParams
from cloudai_beat.replay import Environment, Fleet, Options, ReplayParameters, Workload, replay


def nodes_of(
    policy: str,
    cpu: list[int],
    asked: list[int],
    *,
    speed: list[float] | None = None,
    every_s: float = 1.0,
    seed: int = 0,
) -> list[int]:
    """The node of each task: they arrive one by one, ask for so many cores and run for 100 s on a reference node."""
    count = len(asked)
    arrival = np.arange(count) * every_s
    workload = Workload.of(
        arrival, np.full(count, 100.0), arrival + 1000, np.zeros(count, int), cpu_milli=np.array(asked) * 1000
    )
    fleet = Fleet.of(np.array(cpu) * 1000)
    factors = np.tile(np.ones(len(cpu)) if speed is None else np.array(speed), (6, 1))
    parameters = GAParams(speed={"cpu-light": dict(zip(fleet.names, factors[0].tolist(), strict=True))})
    options = Options(policy=policy, tau=np.full(6, 100.0), learn_tau=False, learn_speed=False, seed=seed)
    environment = Environment(factor=factors, noise=np.ones(count))
    return replay(workload, fleet, environment, ReplayParameters.of(parameters, fleet), options).node.tolist()


def test_round_robin_goes_round_whoever_is_busy() -> None:
    assert nodes_of("round-robin", [1, 8], [1, 1, 1, 1]) == [0, 1, 0, 1]


def test_least_loaded_fills_by_share() -> None:
    assert nodes_of("least-loaded", [2, 8], [1, 1, 1, 1, 1, 1]) == [0, 1, 1, 1, 1, 0]


def test_the_shortest_queue_is_joined_when_none_can_start() -> None:
    # Both are full after two tasks; then the queues grow in turn.
    assert nodes_of("join-shortest-queue", [1, 1], [1, 1, 1, 1, 1, 1]) == [0, 1, 0, 1, 0, 1]


def test_least_allocated_keeps_the_most_free() -> None:
    assert nodes_of("k8s-least-allocated", [4, 16], [2, 2, 2]) == [1, 1, 1]


def test_power_of_two_draws_and_repeats_itself() -> None:
    first, again, other = (nodes_of("power-of-two", [1] * 8, [1] * 60, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(set(first)) == 8


def test_minimum_completion_weighs_waiting_against_speed() -> None:
    # The fast node takes two in a row (25 s each) before the slow one (100 s) would be sooner, and then goes on.
    assert nodes_of("mct", [1, 1], [1] * 5, speed=[0.25, 1.0], every_s=0.0) == [0, 0, 0, 0, 1]


def test_hybrid_takes_the_fastest_idle_node_before_any_queue() -> None:
    assert nodes_of("hybrid-edf", [1, 1, 1], [1] * 3, speed=[1.0, 0.25, 0.5], every_s=0.0) == [1, 2, 0]


@pytest.mark.parametrize(
    "policy", ["least-loaded", "power-of-two", "join-shortest-queue", "k8s-least-allocated", "mct", "hybrid-edf"]
)
def test_a_task_goes_only_where_it_could_ever_run(policy: str) -> None:
    assert nodes_of(policy, [1, 1, 4], [2, 2, 2, 2, 2]) == [2] * 5
