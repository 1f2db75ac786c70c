"""Small tasks through one worker, late-bound, against a plain worker of the same pool and concurrency."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import redis

from cloudai.bench import trivial_task
from cloudai.bench.conversation import BenchError, Child
from cloudai.bench.figures import Figure
from cloudai.bench.lab import Lab, cloudai_environment, plain_environment
from cloudai.bench.rounds import take_turns
from cloudai.embedded import EmbeddedValkey
from cloudai.node_process import NodeProcess

#: Threads of both workers, and so the slots of the node.
CONCURRENCY = 4
#: For the worker's start, and for one backlog, seconds.
_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.02
#: Tasks of one round: far more than slots, so that nearly all are late-bound.
_BACKLOG = 1000


@dataclass(frozen=True, slots=True)
class _Side:
    """A worker with the producer that feeds it."""

    server: EmbeddedValkey
    producer: Child
    worker: NodeProcess

    def run(self, backlog: int) -> float:
        """Seconds from the start of a backlog's first task to the end of its last one.

        The backlog is there before: the worker is stopped (SIGSTOP) while it is made and while others have
        their turn.
        """
        self.producer.ask("submit", count=backlog, total=backlog)
        with redis.Redis.from_url(self.server.url, socket_timeout=2 * _TIMEOUT_S) as client:
            self.worker.signal(signal.SIGCONT)
            answer = client.blpop([trivial_task.SPANS], timeout=_TIMEOUT_S)
        if answer is None:
            raise BenchError(
                f"{self.worker.name}: {backlog} tasks were not done in {_TIMEOUT_S:.0f} s, "
                f"{self.producer.ask('outstanding')} are left. The end of its log:\n{self.worker.log_end()}"
            )
        self._wait_until(lambda: self.producer.ask("outstanding") == 0, "finish its last tasks")
        self.worker.signal(signal.SIGSTOP)
        return float(answer[1])

    def wait_until_ready(self) -> None:
        """Wait until the worker consumes, then stop it until its turn."""
        self._wait_until(lambda: _somebody_waits(self.server), "start")
        self.worker.signal(signal.SIGSTOP)

    def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline or not self.worker.is_running():
                raise BenchError(f"{self.worker.name} did not {what}. The end of its log:\n{self.worker.log_end()}")
            time.sleep(_LOOK_EVERY_S)


def share_of_plain_throughput(lab: Lab) -> Figure:
    """Throughput of one node, as a share of a plain worker's with its default settings.

    A node sends task events, which plain Celery does only when told (`-E`): it is measured that way too.
    """
    with ExitStack() as started:
        sides = {
            "plain": _plain(lab, started),
            "plain with events": _plain(lab, started, "-E"),
            "ours": _node(lab, started),
        }
        for side in sides.values():
            side.wait_until_ready()
        turns = {name: partial(side.run, _BACKLOG) for name, side in sides.items()}
        seen = take_turns(3 if lab.quick else 7, turns)
    rate = {name: _BACKLOG / seen.median_s(name) for name in sides}
    like_for_like = seen.rate_ratio("ours", "plain with events")
    return Figure(
        seen.rate_ratio("ours", "plain"),
        f"plain worker, -P threads -c {CONCURRENCY}, backlog of {_BACKLOG}: {rate['plain']:.0f}/s; "
        f"a node of {CONCURRENCY} slots: {rate['ours']:.0f}/s; a plain worker that sends events "
        f"(-E): {rate['plain with events']:.0f}/s, ours is {like_for_like:.2f} of it",
    )


def _plain(lab: Lab, started: ExitStack, *options: str) -> _Side:
    server = started.enter_context(lab.server())
    command = ("-P", "threads", "-c", str(CONCURRENCY), *options)
    return _Side(
        server,
        started.enter_context(lab.plain_producer(server)),
        started.enter_context(lab.worker("cloudai.bench.plain_app", command, plain_environment(server))),
    )


def _node(lab: Lab, started: ExitStack) -> _Side:
    server = started.enter_context(lab.server())
    # The pool of a node is one of threads too.
    command = ("--node", "-c", str(CONCURRENCY))
    environment = cloudai_environment(server, node={"cpu": 4, "memory": "4GiB", "runner": "process"})
    return _Side(
        server,
        started.enter_context(lab.cloudai_producer(server)),
        started.enter_context(lab.worker("cloudai.bench.cloudai_app", command, environment)),
    )


def _somebody_waits(server: EmbeddedValkey) -> bool:
    """Whether a client waits at a list: the worker consumes, for nobody else uses the server."""
    with redis.Redis.from_url(server.url) as client:
        return int(client.info("clients")["blocked_clients"]) > 0
