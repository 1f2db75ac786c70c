"""The node's clerk: one thread that reports ended attempts to the ledger and dispatches waiting tasks.

Reports that Redis does not take, because it is away, stay in the clerk's queue and are made when it is back: a finish
is never lost while the worker lives, and the reservation of a lost one is freed by the lease.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice, zip_longest

import redis
from redis.exceptions import RedisError

from cloudai.deployment import Deployment
from cloudai.state.attempts import Claim, Finish, Report
from cloudai.state.waiting import WaitingSet

logger = logging.getLogger(__name__)

#: Reports that go to Redis in one round trip at most.
REPORTS_TOGETHER = 16
#: Between two attempts to reach Redis, seconds.
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Measured:
    """What a job told of itself, beside Celery's own clock."""

    #: The work itself, seconds: without waiting, image pull and clean-up.
    run_s: float | None
    usage: dict[str, float | int | str] = field(default_factory=dict)


class Clerk:
    """Takes reports from any thread; works in its own."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        node: str,
        first: Callable[[], None],
        claim_of: Callable[[str, int], Claim | None],
        overload_of: Callable[[str, int], float | None],
        reported: Callable[[str, int], None],
    ) -> None:
        self._deployment = deployment
        #: Name of the node whose attempts are reported.
        self._node = node
        #: The claim of a task id and attempt, where it is held.
        self._claim_of = claim_of
        #: Seconds that the node was overloaded while it held a task id and attempt.
        self._overload_of = overload_of
        #: Called before each piece of work; may raise RedisError.
        self._first = first
        #: Called with task id and attempt once the ledger knows of an end.
        self._reported = reported
        self._reports: deque[Report] = deque()
        self._together = REPORTS_TOGETHER
        self._measured: dict[tuple[str, int], Measured] = {}
        #: Guards what says whether there is work: _reports, _dispatch, _closing.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._dispatch = False
        self._closing = False
        self._gave_up = threading.Event()
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
        usage = dict(measured.usage) if measured else {}
        overload_s = self._overload_of(task_id, attempt)
        if overload_s is not None:
            usage["overload_s"] = round(overload_s, 3)
        with self._lock:
            self._reports.append(Report(task_id, attempt, outcome, runtime_s, reason, started, usage))
            self._idle.clear()
        self._wake.set()

    def dispatch(self) -> None:
        """Place waiting tasks soon: capacity was released, or something waits again."""
        with self._lock:
            self._dispatch = True
            self._idle.clear()
        self._wake.set()

    def close(self, timeout_s: float) -> int:
        """Make the outstanding reports, for at most `timeout_s`; returns how many could not be made."""
        self._idle.wait(timeout_s)
        with self._lock:
            self._closing = True
        self._gave_up.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        return len(self._reports)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._busy():
                if not self._tried() and self._gave_up.wait(_RETRY_S):
                    return
            if self._closing:
                return

    def _busy(self) -> bool:
        with self._lock:
            if self._reports or self._dispatch:
                return True
            self._idle.set()
            return False

    def _tried(self) -> bool:
        """Do one piece of work. False: Redis did not take it; it is kept."""
        try:
            self._first()
            if self._reports:
                self._report_some()
            else:
                self._dispatch_waiting()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            logger.warning(
                "redis-away reports=%d: kept, and made when it is back (%s)", len(self._reports), error
            )
            return False
        except RedisError:
            # One that Redis refuses must not keep the others back.
            logger.exception("redis-refused reports=%d: kept, and made again one by one", len(self._reports))
            self._reports.rotate(-1)
            return False
        return True

    def _report_some(self) -> None:
        """Make the oldest reports, several in one round trip."""
        reports = list(islice(self._reports, self._together))
        claims = [self._claim_of(report.task_id, report.attempt) for report in reports]
        finishes: list[Finish] = []
        found: WaitingSet | None = None
        try:
            finishes, found = self._deployment.dispatcher.end(
                reports, self._node, [claim for claim in claims if claim]
            )
        except RedisError:
            # If Redis refuses one of them, the others must not be kept back.
            self._together = 1
            raise
        except Exception:
            # A defect must not silence the clerk: the report is dropped aloud, and the node gives the claim back.
            if self._together > 1:
                self._together = 1
                return
            report = reports[0]
            logger.exception(
                "report-dropped task=%s attempt=%d outcome=%s: a defect, please report it; the claim is given back",
                report.task_id, report.attempt, report.outcome,
            )  # fmt: skip
        else:
            self._together = REPORTS_TOGETHER
        for report, finish in zip_longest(reports, finishes):
            self._reports.popleft()
            if finish is not None:
                _tell(report, finish)
            self._reported(report.task_id, report.attempt)
        if found is not None:
            self._dispatch_waiting(found)

    def _dispatch_waiting(self, found: WaitingSet | None = None) -> None:
        with self._lock:
            self._dispatch = False
        try:
            self._deployment.dispatcher.run(found)
        except RedisError:
            with self._lock:
                self._dispatch = True
            raise
        except Exception:
            logger.exception("dispatch-failed: waiting tasks are looked at again with the next sweep")


def _tell(report: Report, finish: Finish) -> None:
    if finish.status == "stale":
        logger.warning(
            "finish-refused task=%s attempt=%d outcome=%s: the ledger has moved on; this report changes nothing",
            report.task_id, report.attempt, report.outcome,
        )  # fmt: skip
    elif finish.outlier:
        logger.info(
            "tau-outlier type=%s runtime=%.6g tau=%.6g task=%s: not learned from, unless more like it follow",
            finish.task_type, report.runtime_s, finish.tau_old, report.task_id,
        )  # fmt: skip
    elif finish.tau_new is not None and finish.tau_old is not None:
        logger.info(
            "tau-updated type=%s runtime=%.6g old=%.6g new=%.6g delta=%+.6g task=%s",
            finish.task_type, report.runtime_s, finish.tau_old, finish.tau_new,
            finish.tau_new - finish.tau_old, report.task_id,
        )  # fmt: skip
