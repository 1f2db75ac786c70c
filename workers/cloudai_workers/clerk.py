"""The node's clerk: one thread that reports ended attempts to the ledger and dispatches waiting tasks.

Reports that Redis does not take, because it is away, stay in the clerk's queue and are made when it is back: a finish
is never lost while the worker lives, and the reservation of a lost one is freed by the lease.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import redis
from redis.exceptions import RedisError

from cloudai.deployment import Deployment

logger = logging.getLogger(__name__)

#: Lambda of spec section 2.
LEARNING_RATE = 0.2
#: Between two attempts to reach Redis, seconds.
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Measured:
    """What a job told of itself, beside Celery's own clock."""

    #: The work itself, seconds: without waiting, image pull and clean-up.
    run_s: float | None
    usage: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Report:
    task_id: str
    attempt: int
    outcome: str
    runtime_s: float | None
    reason: str
    started: float
    usage: dict[str, float | int | str]


class Clerk:
    """Takes reports from any thread; works in its own."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._reports: deque[_Report] = deque()
        self._measured: dict[tuple[str, int], Measured] = {}
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._dispatch = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="cloudai-clerk", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def measured(self, task_id: str, attempt: int, measured: Measured) -> None:
        """Note what a job measured; the report of its end takes it along."""
        self._measured[task_id, attempt] = measured

    def ended(
        self,
        task_id: str,
        attempt: int,
        outcome: str,
        *,
        runtime_s: float | None = None,
        reason: str = "",
        started: float = 0.0,
    ) -> None:
        """An attempt has ended and its result is stored."""
        measured = self._measured.pop((task_id, attempt), None)
        if measured is not None:
            runtime_s = measured.run_s
        self._idle.clear()
        self._reports.append(
            _Report(task_id, attempt, outcome, runtime_s, reason, started, measured.usage if measured else {})
        )
        self._wake.set()

    def dispatch(self) -> None:
        """Place waiting tasks soon: capacity was released, or something waits again."""
        self._dispatch = True
        self._idle.clear()
        self._wake.set()

    def close(self, timeout_s: float) -> int:
        """Make the outstanding reports, for at most `timeout_s`; returns how many could not be made."""
        self._idle.wait(timeout_s)
        self._closing = True
        self._wake.set()
        self._thread.join(5.0)
        return len(self._reports)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait()
            self._wake.clear()
            while self._reports or self._dispatch:
                if not self._tried(self._work):
                    if self._closing:
                        return
                    time.sleep(_RETRY_S)
            self._idle.set()
            if self._reports or self._dispatch:
                self._wake.set()

    def _tried(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            logger.warning(
                "redis-away reports=%d: kept, and made when it is back (%s)", len(self._reports), error
            )
            return False
        except RedisError:
            logger.exception("redis-refused reports=%d", len(self._reports))
            return False
        except Exception:
            # A defect must not silence the clerk: what it had in hand is dropped aloud and the sweep frees it.
            logger.exception("clerk-failed")
            self._dispatch = False
        return True

    def _work(self) -> None:
        while self._reports:
            waiting = self._report(self._reports[0])
            self._reports.popleft()
            if waiting:
                self._dispatch = True
        if self._dispatch:
            self._dispatch = False
            try:
                self._deployment.dispatcher.run()
            except RedisError:
                self._dispatch = True
                raise

    def _report(self, report: _Report) -> int:
        """Make one report; returns how many tasks wait for capacity."""
        finish = self._deployment.ledger.finish(
            report.task_id,
            report.attempt,
            report.outcome,
            runtime_s=report.runtime_s,
            learning_rate=LEARNING_RATE,
            reason=report.reason,
            started=report.started,
            usage=report.usage,
        )
        if finish.status == "stale":
            logger.warning(
                "finish-refused task=%s attempt=%d outcome=%s: the ledger has moved on; this report changes nothing",
                report.task_id, report.attempt, report.outcome,
            )  # fmt: skip
        elif finish.tau_new is not None and finish.tau_old is not None:
            logger.info(
                "tau-updated type=%s runtime=%.6g old=%.6g new=%.6g delta=%+.6g task=%s",
                finish.task_type, report.runtime_s, finish.tau_old, finish.tau_new,
                finish.tau_new - finish.tau_old, report.task_id,
            )  # fmt: skip
        return finish.waiting
