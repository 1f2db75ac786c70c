"""Small tasks through one worker, late-bound, against a plain worker of the same pool and concurrency."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from cloudai.bench import trivial_task
from cloudai.bench.conversation import BenchError, Child
from cloudai.bench.figures import Figure
from cloudai.bench.lab import Lab, cloudai_environment, plain_environment
from cloudai.bench.rounds import compare
from cloudai.embedded import EmbeddedValkey
from cloudai.node_process import NodeProcess

#: Threads of both workers, and so the slots of the node.
CONCURRENCY = 4
#: Tasks that wait when consumption begins: far more than slots, so that nearly all are late-bound.
_BACKLOG = 3000
#: For one backlog, the worker's start included, seconds.
_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class _Side:
    """A worker with the producer that feeds it."""

    server: EmbeddedValkey
    producer: Child
    worker: NodeProcess
    #: Whether the worker takes tasks by now.
    is_ready: Callable[[], bool]

    def run(self, backlog: int) -> float:
        """Seconds from the start of the first task to the end of the last, of a backlog that was there before.

        The worker is stopped (SIGSTOP) while the backlog is made and while the other side has its turn.
        """
        self.producer.ask("submit", count=backlog, total=backlog)
        with redis.Redis.from_url(self.server.url, socket_timeout=2 * _TIMEOUT_S) as client:
            self.worker.signal(signal.SIGCONT)
            answer = client.blpop([trivial_task.SPANS], timeout=_TIMEOUT_S)
        if answer is None:
            raise BenchError(
                f"{self.worker.name}: {backlog} small tasks were not done within {_TIMEOUT_S:.0f} s; "
                f"{self.producer.ask('outstanding')} are outstanding. The end of the log:\n{self.worker.log_end()}"
            )
        self._wait_until(lambda: self.producer.ask("outstanding") == 0, "finish its last tasks")
        self.worker.signal(signal.SIGSTOP)
        return float(answer[1])

    def wait_until_ready(self) -> None:
        """Wait until the worker consumes, then stop it until its turn."""
        self._wait_until(self.is_ready, "start")
        self.worker.signal(signal.SIGSTOP)

    def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline or not self.worker.is_running():
                raise BenchError(f"{self.worker.name} did not {what}. The end of its log:\n{self.worker.log_end()}")
            time.sleep(_LOOK_EVERY_S)


def share_of_plain_throughput(lab: Lab) -> Figure:
    """Throughput of one node, as a share of a plain worker's."""
    backlog = _BACKLOG // 3 if lab.quick else _BACKLOG
    rounds = min(lab.rounds, 5)
    with lab.servers() as (plain_server, our_server):
        ours = cloudai_environment(our_server, node={"slots": CONCURRENCY, "cpu": 4, "memory": "4GiB", "runner": "process"})
        pool = ("-P", "threads", "-c", str(CONCURRENCY))
        with (
            lab.plain_producer(plain_server) as plain_producer,
            lab.cloudai_producer(our_server) as our_producer,
            lab.worker("cloudai.bench.plain_app", pool, plain_environment(plain_server)) as plain_worker,
            # A node's own pool is a pool of threads too.
            lab.worker("cloudai.bench.cloudai_app", ("--node", "-c", str(CONCURRENCY)), ours) as our_worker,
        ):
            plain_side = _Side(plain_server, plain_producer, plain_worker, lambda: _somebody_waits(plain_server))
            our_side = _Side(our_server, our_producer, our_worker, lambda: _somebody_waits(our_server))
            for side in (plain_side, our_side):
                side.wait_until_ready()
            seen = compare(rounds, lambda: plain_side.run(backlog), lambda: our_side.run(backlog))
    return Figure(
        seen.rate_ratio,
        f"plain Celery worker, -P threads -c {CONCURRENCY}, backlog of {backlog}: "
        f"{backlog / seen.reference_median_s:.0f} tasks/s; a node with {CONCURRENCY} slots: "
        f"{backlog / seen.candidate_median_s:.0f} tasks/s",
    )


def _somebody_waits(server: EmbeddedValkey) -> bool:
    """Whether a client waits at a list: the worker consumes, for nobody else uses the server."""
    with redis.Redis.from_url(server.url) as client:
        return int(client.info("clients")["blocked_clients"]) > 0
