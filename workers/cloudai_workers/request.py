"""The request of a task on a node: every way out of it ends the attempt in the ledger, after its result was stored."""

from __future__ import annotations

import threading
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import states
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
)
from celery.worker import state as worker_state
from celery.worker.request import Request

from cloudai import names
from cloudai.containers.errors import Superseded, TimeLimitReached
from cloudai_workers import this_node
from cloudai_workers.pool import jobs


class NodeRequest(Request):
    """Celery's request; its callbacks report to the node's clerk. Runs in the worker's parent process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # In a thread pool a job is accepted in one thread and stopped from another.
        self._stop_lock = threading.RLock()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Celery makes a subclass per task with an `on_success` that does not call super: wrap it.
        super().__init_subclass__(**kwargs)
        generated = cls.__dict__.get("on_success")
        if generated is not None:

            def on_success(self: NodeRequest, failed__retval__runtime: Any, **options: Any) -> Any:
                try:
                    return generated(self, failed__retval__runtime, **options)
                finally:
                    failed, retval, runtime = failed__retval__runtime
                    if failed:
                        # on_failure has ended it, unless the body raised SystemExit, which Celery raises again here.
                        self._end(self._failed_as(retval))
                    else:
                        self._end(names.SUCCEEDED, runtime_s=runtime)

            cls.on_success = on_success

    @property
    def _header(self) -> dict[str, Any]:
        return self._request_dict.get(names.HEADER) or {}

    def _end(self, outcome: str, *, runtime_s: float | None = None, reason: str = "") -> None:
        attempt = self._header.get("attempt")
        node = this_node.current()
        if attempt is None or node is None or self.__dict__.get("_cloudai_ended"):
            return
        self.__dict__["_cloudai_ended"] = True
        node.clerk.ended(self.id, attempt, outcome, runtime_s=runtime_s, reason=reason, started=self.time_start or 0.0)

    def on_accepted(self, pid: int, time_accepted: float) -> Any:
        """As Celery's; a task that was unclaimed a moment ago does not start."""
        node = this_node.current()
        if node is not None and node.deliveries.was_given_back(self.id, self._header.get("attempt", 0)):
            # Unclaimed at shutdown a moment ago: somebody else runs it.
            self.__dict__["_cloudai_ended"] = True
            jobs.stop(pid)
            return None
        with self._stop_lock:
            return super().on_accepted(pid, time_accepted)

    def terminate(self, pool: Any, signal: Any = None) -> Any:
        """As Celery's; the job may end before Celery has noted why, so it is noted here first."""
        with self._stop_lock:
            self.__dict__["_cloudai_terminated"] = True
            return super().terminate(pool, signal)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> Any:
        """As Celery's, at a cold shutdown; noted first, as for terminate."""
        with self._stop_lock:
            if self.time_start:
                self.__dict__["_cloudai_cancelled"] = True
            return super().cancel(pool, signal, emit_retry)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """As Celery's; the attempt ends."""
        try:
            answer = super().on_failure(exc_info, send_failed_event, return_ok)
            if self.__dict__.get("_cloudai_terminated"):
                self._keep_revoked()
            return answer
        finally:
            self._end(self._failed_as(exc_info), reason=_why_rejected(exc_info))

    def _failed_as(self, exc_info: Any) -> str:
        exc = _raised(exc_info)
        if self._already_revoked or self.__dict__.get("_cloudai_terminated"):
            return names.CANCELLED
        if self._already_cancelled or self.__dict__.get("_cloudai_cancelled"):
            # A cold shutdown stopped it: another node runs it. Celery announces it only when the pool has ended.
            node = this_node.current()
            if worker_state.should_terminate and node is not None:
                node.shutting_down()
            return "requeued"
        if self.__dict__.get("_cloudai_requeued"):
            return "requeued"
        if isinstance(exc, Retry) or self.__dict__.get("_cloudai_retried"):
            return "retried"
        if isinstance(exc, Ignore) and isinstance(exc.__cause__, Superseded):
            # Another attempt has it. Where this one counts after all, it has nothing to show, and runs again.
            return "requeued"
        if isinstance(exc, Ignore):
            # The task stored its own result (or a replacement follows); it did not fail.
            return names.SUCCEEDED
        if isinstance(exc, (TimeLimitExceeded, SoftTimeLimitExceeded, TimeLimitReached)):
            return names.TIMED_OUT
        return names.FAILED

    def _keep_revoked(self) -> None:
        """The job's thread may have stored STARTED behind the REVOKED of the thread that stopped it."""
        backend = self.task.backend
        if self.store_errors and backend.get_state(self.id) == states.STARTED:
            backend.store_result(self.id, TaskRevokedError("terminated"), states.REVOKED, request=self._context)

    def reject(self, requeue: bool = False) -> Any:
        """As Celery's, which gives a message back for more reasons than Reject: a lost pool process, a time limit."""
        if requeue:
            self.__dict__["_cloudai_requeued"] = True
        return super().reject(requeue)

    def _retry_worker_lost(self, exc: Exception, exc_info: Any) -> Any:
        retried = super()._retry_worker_lost(exc, exc_info)
        self.__dict__["_cloudai_retried"] = bool(retried)
        return retried

    def info(self, safe: bool = False) -> dict[str, Any]:
        """As Celery's, for remote inspection and Flower; a task may keep arguments of its own to itself."""
        shown: dict[str, Any] = super().info(safe)
        redact = getattr(self.task, "shown_kwargs", None)
        if redact is not None and not safe:
            shown["kwargs"] = redact(shown["kwargs"])
        return shown

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        """As Celery's; a hard limit ends the attempt."""
        try:
            return super().on_timeout(soft, timeout)
        finally:
            if not soft:
                requeued = self.__dict__.get("_cloudai_requeued")
                self._end("requeued" if requeued else names.TIMED_OUT, reason=f"hard time limit of {timeout} s")

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> Any:
        try:
            return super()._announce_revoked(reason, terminated, signum, expired)
        finally:
            # A terminated job still runs until its own callback comes; that one ends the attempt.
            if not terminated:
                self._end(names.EXPIRED if expired else names.CANCELLED, reason=reason)


def _raised(exc_info: Any) -> BaseException:
    """What was raised: a pool of processes sends it wrapped."""
    exc: BaseException = exc_info.exception
    return exc.exc if isinstance(exc, ExceptionWithTraceback) else exc


def _why_rejected(exc_info: Any) -> str:
    exc = _raised(exc_info)
    return str(exc.reason or "") if isinstance(exc, Reject) else ""
