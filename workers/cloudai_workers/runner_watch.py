"""Whether a node can run container jobs now: asked of its runner now and then, and told to the fleet when it changes.

An engine that does not answer takes its node's label `containers` away: container jobs go to other nodes, or wait, and
what the node was to begin is given back. A node that took them and failed them would soon fail all that waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from redis.exceptions import RedisError

from cloudai_workers.runners.base import Runner

logger = logging.getLogger(__name__)

#: Between two looks while the runner cannot run jobs, seconds.
AWAY_INTERVAL_S = 1.0


class RunnerWatch:
    """Looks in a thread of its own, since an engine that hangs must not keep the heart from beating."""

    def __init__(
        self, runner: Runner, node: str, *, interval_s: float, back: Callable[[], None], announce: Callable[[], None]
    ) -> None:
        """Nothing is asked yet.

        Args:
            runner: what runs the node's jobs.
            node: its name, for the log.
            interval_s: between two looks while all is well.
            back: called when the runner can run jobs again, before that is announced. May raise RedisError.
            announce: tells the fleet what `problem` says now. May raise RedisError.

        """
        self._runner = runner
        self._node = node
        self._interval_s = interval_s
        self._back = back
        self._announce = announce
        #: Why no container job can run here, or None.
        self.problem: str | None = None
        #: Whether what is announced is what `problem` says.
        self._told = True
        self._looks = 0
        self._lock = threading.Lock()
        self._stopping = False
        #: A job has found that the runner is away, or the watch is to end: its thread is not to sleep on.
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloudai-runner-watch", daemon=True)

    def begin(self) -> str | None:
        """Look for the first time, and say it aloud; the caller announces it. Returns the problem, or None."""
        self.problem = self._runner.check()
        if self.problem is None:
            self._say_notices()
        else:
            self._say_problem()
        return self.problem

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping = True
        self._wake.set()

    def look(self) -> None:
        """Look now, and announce what has changed. Raises RedisError: it is announced with the next look."""
        looks = self._looks
        with self._lock:
            if self._looks != looks:
                return  # another thread has looked meanwhile: an engine that hangs is not asked by each in turn
            problem = self._runner.check()
            self._looks += 1
            if (problem is None) != (self.problem is None):
                self._told = False
                if threading.current_thread() is not self._thread:
                    self._wake.set()
            self.problem = problem
            if self._told:
                return
            if problem is None:
                self._back()
            self._announce()
            self._told = True
            if problem is not None:
                self._say_problem()
            else:
                logger.warning(
                    "runner-back node=%s runner=%s: it takes container jobs again", self._node, self._runner.name
                )
                self._say_notices()

    def tell(self) -> None:
        """Look now, and announce what has changed; while Redis is away, the next look does."""
        try:
            self.look()
        except RedisError as error:
            logger.warning("announcement-waits node=%s: Redis is away (%s)", self._node, error)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._interval_s if self.problem is None and self._told else AWAY_INTERVAL_S)
            self._wake.clear()
            if self._stopping:
                return
            try:
                self.tell()
            except Exception:
                logger.exception("runner-watch-failed node=%s: a defect, please report it", self._node)

    def _say_problem(self) -> None:
        logger.warning(
            "runner-unavailable node=%s runner=%s: container jobs go elsewhere, or wait, until it can run them. %s",
            self._node, self._runner.name, self.problem,
        )  # fmt: skip

    def _say_notices(self) -> None:
        for notice in self._runner.notices():
            logger.warning("runner-notice runner=%s: %s", self._runner.name, notice)
