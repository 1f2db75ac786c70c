"""A fleet of unequal nodes that nobody runs: in Redis, as nodes register, or as values for the pure core."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from cloudai.bench.lab import PATIENCE_S
from cloudai.deployment import Deployment
from cloudai.scheduling.nodes import NodeState
from cloudai.settings import Settings
from cloudai.state.fleet import NodeCapacity

_SEED = 20_240_229
_GIB = 2**20
#: Capacities are so many times those of real machines: what is placed while measuring never fills a node.
_ROOM = 100


@dataclass(frozen=True, slots=True)
class BenchNode:
    """One node of the fleet."""

    name: str
    capacity: NodeCapacity
    #: Load beside our tasks, 0..1.
    pressure: float
    labels: dict[str, str]


def fleet(count: int) -> Iterator[BenchNode]:
    """`count` nodes, the same ones in every run."""
    chance = random.Random(_SEED)
    for i in range(count):
        cores = chance.choice((4, 8, 16, 32, 64))
        capacity = NodeCapacity(
            cpu_milli=cores * 1000 * _ROOM,
            memory_kib=cores * chance.choice((2, 4, 8)) * _GIB * _ROOM,
            gpus=chance.choice((0, 0, 0, 1, 4)),
            storage_kib=chance.choice((100, 500, 2000)) * _GIB,
            slots=cores * _ROOM,
        )
        labels = {"zone": chance.choice("abc")}
        yield BenchNode(f"node-{i:05d}", capacity, round(chance.uniform(0.05, 0.9), 4), labels)


def register(url: str, count: int) -> None:
    """Let all nodes join the deployment at `url`, with a heartbeat of now."""
    deployment = Deployment(Settings.load(redis={"url": url}))
    for node in fleet(count):
        deployment.fleet.register(
            node.name,
            f"incarnation-{node.name}",
            node.capacity,
            labels=node.labels,
            timeout_s=PATIENCE_S,
            lease_s=2 * PATIENCE_S,
            pressure=node.pressure,
            max_attempts=3,
            finished_ttl_s=3600,
            shown={"host": node.name, "pid": "1", "version": "bench", "runner": "process", "pool": "threads"},
        )
    deployment.client.close()


def states(count: int, now: float) -> list[NodeState]:
    """The fleet as the scheduler sees it, with a quarter of each node reserved; `now` in epoch seconds."""
    return [
        NodeState(
            name=node.name,
            cpu_capacity=node.capacity.cpu_milli,
            memory_capacity=node.capacity.memory_kib,
            slots_capacity=node.capacity.slots,
            cpu_available=node.capacity.cpu_milli * 3 // 4,
            memory_available=node.capacity.memory_kib * 3 // 4,
            slots_available=node.capacity.slots * 3 // 4,
            heartbeat=now,
            gpu_capacity=node.capacity.gpus,
            gpu_free=(1000,) * node.capacity.gpus,
            storage_capacity=node.capacity.storage_kib,
            storage_available=node.capacity.storage_kib,
            labels=node.labels,
            pressure=node.pressure,
            version=version,
        )
        for version, node in enumerate(fleet(count), 1)
    ]
