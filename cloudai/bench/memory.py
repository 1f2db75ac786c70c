"""What a task in flight and a node take of Redis's memory."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import redis

from cloudai.bench.figures import Figure
from cloudai.bench.fleet import register
from cloudai.bench.lab import Lab
from cloudai.names import Keys

#: Nodes over which the tasks are spread.
_NODES = 100
_BATCH = 500


def bytes_per_task(lab: Lab) -> Figure:
    """Memory of a placed task beyond its message and its decision record."""
    tasks = 2000 if lab.quick else 5000
    keys = Keys()
    with lab.server() as server:
        register(server.url, _NODES)
        with lab.cloudai_producer(server) as ours, redis.Redis.from_url(server.url) as client:
            # The first ones bring connections, scripts and the node's keys.
            ours.ask("submit", count=_NODES, total=_NODES)
            before = _Memory.of(client, keys)
            ours.ask("submit", count=tasks, total=tasks)
            after = _Memory.of(client, keys)
    grown = after.used - before.used
    messages = (after.messages - before.messages) / tasks
    decisions = (after.decisions - before.decisions) / tasks
    events = (after.events - before.events) / tasks
    return Figure(
        grown / tasks - messages - decisions - events,
        f"fixed goal; of {grown / tasks:.0f} bytes in all: message {messages:.0f}, "
        f"decision record {decisions:.0f}, events in the stream, which outlive the task, {events:.0f}",
    )


def bytes_per_node(lab: Lab) -> Figure:
    """Memory of a registered node."""
    nodes = 1000 if lab.quick else 5000
    keys = Keys()
    with lab.server() as server, redis.Redis.from_url(server.url) as client:
        register(server.url, 1)
        before = _Memory.of(client, keys)
        register(server.url, nodes)
        after = _Memory.of(client, keys)
    events = (after.events - before.events) / (nodes - 1)
    return Figure(
        (after.used - before.used) / (nodes - 1) - events,
        f"fixed goal; beside it the event of its registration, {events:.0f} bytes",
    )


class _Memory:
    """What Redis says that it uses, bytes."""

    def __init__(self, used: int, messages: int, decisions: int, events: int) -> None:
        self.used = used
        self.messages = messages
        self.decisions = decisions
        self.events = events

    @classmethod
    def of(cls, client: redis.Redis, keys: Keys) -> _Memory:
        """Read it now; `used` without the buffers of the clients and of the append-only file."""
        stats = client.memory_stats()
        buffers = int(stats["clients.normal"]) + int(stats["aof.buffer"])
        return cls(
            used=int(client.info("memory")["used_memory"]) - buffers,
            messages=_usage(client, client.scan_iter(keys.message("*"), count=1000)),
            decisions=_usage(client, client.scan_iter(keys.decision("*"), count=1000)),
            events=_usage(client, [keys.events]),
        )


def _usage(client: redis.Redis, names: Iterable[bytes | str]) -> int:
    total = 0
    rest = iter(names)
    while batch := list(islice(rest, _BATCH)):
        with client.pipeline(transaction=False) as pipe:
            for name in batch:
                pipe.memory_usage(name, samples=0)
            total += sum(size or 0 for size in pipe.execute())
    return total
