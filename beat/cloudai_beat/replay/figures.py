"""The row of `cloudai bench` for the replay's speed."""

from __future__ import annotations

from time import process_time

import numpy as np

from cloudai.bench.figures import Figure, Promise
from cloudai.bench.lab import Lab
from cloudai.scheduling.parameters import GAParams

from .engine import Options
from .loop import run
from .parameters import ReplayParameters
from .policies import RTS
from .workload import Environment, Fleet, Workload
from .world import world

_NODES = 100
_LOAD = 0.7
_ROUNDS = 5


def placements_per_second(lab: Lab) -> Figure:
    """Placements a second of one core's time, best of some rounds: six types, unequal nodes, all learned."""
    workload, fleet, environment = _scene(50_000 if lab.quick else 200_000)
    parameters, options = ReplayParameters.of(GAParams(), fleet), Options()
    run(RTS, world(workload.part(0, 1000), fleet, _part(environment, 1000), parameters, options))
    seconds = []
    for _ in range(_ROUNDS):
        state = world(workload, fleet, environment, parameters, options)
        begun = process_time()
        run(RTS, state)
        seconds.append(process_time() - begun)
    return Figure(len(workload) / min(seconds), f"fixed goal; {_NODES} nodes at load {_LOAD:g}, time of one core")


def _part(environment: Environment, count: int) -> Environment:
    return Environment(factor=environment.factor, noise=environment.noise[:count])


def _scene(count: int) -> tuple[Workload, Fleet, Environment]:
    chance = np.random.default_rng(7)
    cores = chance.choice([16, 32, 64], _NODES)
    kind = chance.integers(0, 6, count)
    cpu, memory = np.array([1, 2, 4, 8, 1, 2])[kind], np.array([2, 4, 8, 16, 1, 8])[kind]
    runtime = chance.lognormal(2, 0.5, count)
    factor = np.exp(chance.uniform(-0.7, 0.7, _NODES)) * chance.lognormal(0, 0.25, (6, _NODES))
    rate = _LOAD * (cores / factor.mean(axis=0)).sum() / (cpu * runtime).mean()
    arrival = np.cumsum(chance.exponential(1 / rate, count))
    workload = Workload.of(
        arrival, runtime, arrival + chance.uniform(1.5, 2.5, count) * runtime, kind, cpu_milli=cpu * 1000,
        memory_kib=memory << 20, family=chance.integers(0, 5, count) + 5 * kind,
    )  # fmt: skip
    fleet = Fleet.of(cores * 1000, memory_kib=cores << 22, slots=64)
    return workload, fleet, Environment(factor=factor, noise=chance.lognormal(0, 0.1, count))


PROMISES = (Promise("replay-100-nodes-per-s", 1e6, "higher", placements_per_second),)
