"""The replay and the live pipeline choose the same task and the same node, decision by decision, on the same states."""

from __future__ import annotations

import heapq
from dataclasses import replace
from math import inf

import numpy as np
import pytest

from cloudai.scheduling.dispatch_order import Waiting, dispatch_order
from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.pipeline import Placer
from cloudai.scheduling.policies import SchedulerPolicy
from cloudai.scheduling.requests import Resources, TaskRequest
from cloudai.scheduling.reservation import with_release, with_reservation
from cloudai.scheduling.rts import RTS
from cloudai.scheduling.scheduler import Context
from cloudai.scheduling.snapshot import FleetSnapshot
from cloudai.scheduling.task_types import INITIAL_TAU, TASK_TYPES
from cloudai_beat.replay import Environment, Fleet, Options, ReplayParameters, Workload
from cloudai_beat.replay import replay as replayed

#: The first replay of a machine compiles the engine.
pytestmark = pytest.mark.timeout(600)

GIB = 1 << 20
ZONE_A = (("zone", "a"),)


def parameters(seed: int, names: tuple[str, ...], **order: float) -> GAParams:
    """As an epoch leaves them; seed 0: the defaults, so that equal nodes tie."""
    if not seed:
        return GAParams(**order)
    chance = np.random.default_rng(seed)
    return GAParams(
        affinity={str(kind): {n: chance.uniform(-1, 1) for n in names[1:]} for kind in TASK_TYPES},
        speed={str(kind): {n: chance.uniform(0.5, 2) for n in names[1:]} for kind in TASK_TYPES},
        penalty={n: chance.uniform(0, 1) for n in names[1:]},
        base={str(kind): chance.uniform(0.5, 1) for kind in TASK_TYPES},
        **order,
    )


class Live:
    """The live pipeline over a snapshot, told of arrivals and ends."""

    def __init__(self, states: list[NodeState], params: GAParams) -> None:
        self.snapshot = FleetSnapshot(states)
        self.placer = Placer(SchedulerPolicy(RTS()))
        self.params = params
        self.waiting: dict[str, Waiting] = {}

    def tau(self, task: Waiting) -> float:
        limit = inf if task.request.limit_s is None else task.request.limit_s
        return min(INITIAL_TAU[task.request.task_type], limit)

    def context(self, now: float, tau: float, slack_s: float) -> Context:
        return Context(snapshot=self.snapshot, parameters=self.params, tau=tau, slack_s=slack_s, now=now)

    def place(self, task: Waiting, now: float) -> str | None:
        decision = self.placer.decide(
            task.task_id, task.request, self.context(now, self.tau(task), task.deadline - now)
        )
        if not decision.candidates:
            return None
        state = self.snapshot.states[self.snapshot.index[decision.candidates[0]]]
        self.snapshot.apply([with_reservation(state, task.request.resources)])
        return state.name

    def next(self, now: float) -> Waiting | None:
        """The waiting task that goes first of those that a node can take now."""
        fitting, runtimes = [], {}
        slowdown: dict[str, float | None] = {}
        for task in self.waiting.values():
            shape = task.request.shape
            if shape not in slowdown:
                slowdown[shape] = self.placer.shortest(task.request, self.context(now, 1.0, inf))
            factor = slowdown[shape]
            if factor is not None:
                fitting.append(task)
                runtimes[task.task_id] = factor * self.tau(task)
        order = dispatch_order(fitting, runtimes, now, weights=self.params, aged_after_s=inf)
        return order[0] if order else None


@pytest.mark.parametrize(
    ("seed", "order"),
    [
        (0, {}),
        (1, {}),
        (2, {"order_margin": 0.7, "order_runtime": 1.5, "order_lateness": 0.5}),
        (3, {"order_margin": 1.3, "order_runtime": -0.5, "order_lateness": 0.9}),
        (4, {"order_margin": 0.8, "order_runtime": 1.0, "order_caution": 3.0, "order_safety": 1.3}),
        (5, {"order_margin": 0.6, "order_runtime": -0.3, "order_lateness": 0.2, "order_caution": 1.5}),
    ],
)
def test_replay_and_live_pipeline_decide_alike(seed: int, order: dict[str, float]) -> None:
    chance = np.random.default_rng(seed + 10)
    count = 600
    sizes = np.array(
        [(500, GIB, 0, 0), (1000, 2 * GIB, 0, GIB), (4000, 8 * GIB, 0, 0), (500, GIB, 250, 0), (500, GIB, 600, 0),
         (1000, GIB, 1000, 0), (2000, 4 * GIB, 2000, 0)]
    )[chance.integers(0, 7, count)]  # fmt: skip
    arrival = np.cumsum(chance.exponential(0.6, count))
    runtime = chance.lognormal(2, 0.8, count)
    workload = Workload.of(
        arrival,
        runtime,
        arrival + chance.uniform(1.5, 2.5, count) * runtime,
        chance.integers(0, 6, count),
        cpu_milli=sizes[:, 0],
        memory_kib=sizes[:, 1],
        gpu_milli=sizes[:, 2],
        storage_kib=sizes[:, 3],
        constraint=(chance.random(count) < 0.2).astype(int),
    )
    names = tuple(f"n{row}" for row in range(6))
    states = [
        NodeState(
            name, cpu, cpu * GIB // 500, 5, cpu, cpu * GIB // 500, 5, 1e9, gpus, (1000,) * gpus, 3 * GIB, 3 * GIB,
            {"zone": "ab"[row % 2]},
        )
        for row, (name, cpu, gpus) in enumerate(
            zip(names, (4000, 4000, 8000, 8000, 16000, 4000), (0, 0, 2, 2, 4, 0), strict=True)
        )
    ]  # fmt: skip
    fleet = Fleet.of(
        np.array([s.cpu_capacity for s in states]),
        memory_kib=np.array([s.memory_capacity for s in states]),
        gpus=np.array([s.gpu_capacity for s in states]),
        storage_kib=3 * GIB,
        slots=5,
        names=names,
        allowed=np.array([[True] * 6, [s.labels["zone"] == "a" for s in states]]),
    )
    environment = Environment(factor=chance.uniform(0.5, 2, (6, 6)), noise=np.ones(count))
    params = parameters(seed, names, **order)
    outcome = replayed(
        workload,
        fleet,
        environment,
        ReplayParameters.of(params, fleet),
        Options(learn_tau=False, learn_speed=False, aged_after_s=1e18, starving_after_s=1e18),
    )

    live = Live([replace(state, heartbeat=1e18) for state in states], params)
    running: list[tuple[float, int, tuple[int, ...]]] = []
    decisions = waited = 0

    def started(i: int, now: float, task: Waiting, before: tuple[NodeState, ...], node: str | None) -> None:
        nonlocal decisions
        decisions += 1
        assert node == names[outcome.node[i]]
        assert now == outcome.start[i]
        row = live.snapshot.index[node]
        free, left = before[row].gpu_free, live.snapshot.states[row].gpu_free
        devices = tuple(d for d, share in enumerate(free) if share != left[d])
        heapq.heappush(running, (outcome.finish[i], i, devices))

    def requested(i: int) -> Waiting:
        resources = Resources(*(int(amount) for amount in sizes[i]))
        request = TaskRequest(
            resources, TASK_TYPES[workload.task_type[i]], constraints=ZONE_A if workload.constraint[i] else ()
        )
        return Waiting(f"{i:05d}", request, float(workload.deadline[i]), float(workload.arrival[i]))

    following = 0
    while running or following < count:
        if following < count and (not running or workload.arrival[following] < running[0][0]):
            now, task, before = float(workload.arrival[following]), requested(following), tuple(live.snapshot.states)
            node = live.place(task, now)
            if node is None:
                live.waiting[task.task_id] = task
                assert outcome.start[following] > now
            else:
                started(following, now, task, before, node)
            following += 1
            continue
        now, ended, devices = heapq.heappop(running)
        state = live.snapshot.states[outcome.node[ended]]
        live.snapshot.apply([with_release(state, Resources(*(int(a) for a in sizes[ended])), devices)])
        while (first := live.next(now)) is not None:
            before = tuple(live.snapshot.states)
            del live.waiting[first.task_id]
            waited += 1
            started(int(first.task_id), now, first, before, live.place(first, now))
    assert decisions == outcome.decisions == count
    assert waited > 100
