"""How a node gets into the fleet: it asks until Redis answers, and until its name is free."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from celery.worker import state as worker_state
from redis.exceptions import RedisError

from cloudai.errors import NodeRefused
from cloudai.state.fleet import ELSEWHERE, Registration
from cloudai_workers.lease import now_s

logger = logging.getLogger(__name__)

#: Between two attempts, seconds at most.
_RETRY_S = 1.0
#: Between two lines in the log about the same obstacle, seconds.
_SAY_EVERY_S = 10.0

_T = TypeVar("_T")


def when_redis_answers(node: str, ask: Callable[[], _T]) -> _T:
    """As Celery waits for its broker at start: a node that starts while Redis does is not to be started again.

    Raises:
        WorkerShutdown, WorkerTerminate: the worker was told to stop meanwhile.
    """
    said = float("-inf")
    while True:
        try:
            return ask()
        except RedisError as error:
            said = _say(said, "redis-away node=%s: it joins when Redis answers (%s)", node, error)
            _rest(_RETRY_S)


def join_fleet(
    node: str, register: Callable[[], Registration], *, timeout_s: float, lost_after_s: float, retry_s: float
) -> tuple[Registration, float]:
    """Register; returns the answer, and when what led to it was sent (`lease.now_s`).

    A Redis that is away, still loading or full is waited for, for as long as it takes. A node that was killed looks
    alive until its heartbeat times out, and its jobs may run on another machine until its lease is over: so long is
    waited for the name.

    Args:
        node: its name.
        register: asks the fleet once.
        timeout_s: heartbeat timeout of the nodes.
        lost_after_s: lease and margin.
        retry_s: between two attempts.

    Raises:
        NodeRefused: a live node has the name.
        WorkerShutdown, WorkerTerminate: the worker was told to stop meanwhile.
    """
    begun: float | None = None
    said = float("-inf")

    def attempt() -> tuple[Registration, float]:
        sent = now_s()
        return register(), sent

    while True:
        answer, sent = when_redis_answers(node, attempt)
        if answer.accepted:
            return answer, sent
        begun = begun or time.monotonic()
        elsewhere = answer.reason == ELSEWHERE
        if time.monotonic() - begun > (lost_after_s if elsewhere else timeout_s) + 1.0:
            raise NodeRefused(
                f"node {node}: a live node has this name (its last heartbeat came "
                f"{answer.holder_silent_s:.1f} s ago). "
                "Give this one another name (-n or node.name), or stop the other one."
            )
        why = (
            "its jobs may still run where it was last, until their lease is over"
            if elsewhere
            else "the name is held until its last heartbeat times out"
        )
        said = _say(said, "node-waits node=%s: %s (%.1f s ago)", node, why, answer.holder_silent_s)
        _rest(min(_RETRY_S, retry_s))


def _rest(seconds: float) -> None:
    worker_state.maybe_shutdown()
    time.sleep(seconds)


def _say(said: float, text: str, *args: object) -> float:
    now = time.monotonic()
    if now - said < _SAY_EVERY_S:
        return said
    logger.warning(text, *args)
    return now
