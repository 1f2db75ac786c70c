"""The node's pool: threads, because a container needs a waiter and no CPU of the worker's.

Celery's thread pool ignores revocation once a task was handed to it, cannot terminate a job, and leaks a slot when the
result cannot be stored. This one adds what is missing, for jobs that register how they are stopped (container jobs).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult, TaskPool
from celery.exceptions import Ignore, WorkerLostError

logger = logging.getLogger(__name__)


class Jobs:
    """The jobs that run in this process's threads, by thread, and how each is stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stoppers: dict[int, Callable[[], None]] = {}
        self._stopped: set[int] = set()

    def begin(self) -> None:
        """A thread takes a new job."""
        with self._lock:
            self._stopped.discard(threading.get_ident())
            self._stoppers.pop(threading.get_ident(), None)

    def end(self) -> None:
        """The thread is done with its job."""
        self.begin()

    def on_stop(self, stopper: Callable[[], None]) -> None:
        """How the job of this thread is stopped; called at once if it was stopped already."""
        with self._lock:
            self._stoppers[threading.get_ident()] = stopper
            stopped = threading.get_ident() in self._stopped
        if stopped:
            stopper()

    def stopped(self) -> bool:
        """Whether the job of this thread was told to stop."""
        return threading.get_ident() in self._stopped

    def stop(self, thread_id: int) -> None:
        """Stop the job of a thread."""
        with self._lock:
            self._stopped.add(thread_id)
            stopper = self._stoppers.get(thread_id)
        if stopper is not None:
            stopper()


#: Of this process.
jobs = Jobs()


class _Result(ApplyResult):
    def terminate(self, signum: int) -> None:
        """Nothing: Request.terminate has stopped the job through the pool already."""


class NodePool(TaskPool):
    """Celery's thread pool whose jobs can be stopped and whose errors reach the request."""

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        error_callback: Any = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        correlation_id: str = "",
        **_: Any,
    ) -> _Result:
        """Run `target` in a thread; every way out of it calls one of the callbacks."""
        if timeout or soft_timeout:
            logger.warning(
                "time-limit-ignored task=%s: a thread cannot be stopped; nodes with `-P prefork` keep time limits",
                correlation_id,
            )

        def guarded(*a: Any, **k: Any) -> Any:
            # Revoked between claim and start: `accept_callback` has told us, and STARTED must not overwrite REVOKED.
            if jobs.stopped():
                try:
                    raise Ignore
                except Ignore:
                    return 1, ExceptionInfo(), 0.0
            return target(*a, **k)

        def run() -> None:
            jobs.begin()
            try:
                apply_target(
                    guarded, args, kwargs, callback, accept_callback, getpid=threading.get_ident,
                    propagate=(SystemExit, KeyboardInterrupt),
                )  # fmt: skip
            except (SystemExit, KeyboardInterrupt) as exit_:
                # The body asked its process to end; a thread cannot. Its caller hears what a lost process would say.
                _tell(error_callback, WorkerLostError(f"the task's body ended its thread: {exit_!r}"))
            except Exception:
                # Stock Celery lets the future swallow this: no callback runs and the slot is lost.
                logger.warning("task-trace-failed: the error goes to the request", exc_info=True)
                if error_callback is not None:
                    error_callback(ExceptionInfo())
            finally:
                jobs.end()

        return _Result(self.executor.submit(run))

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Stop the job that runs in thread `pid`."""
        jobs.stop(pid)


def _tell(error_callback: Any, error: Exception) -> None:
    try:
        raise error
    except type(error):
        if error_callback is not None:
            error_callback(ExceptionInfo())
