"""Keeps the node's lease: pauses its jobs before it ends, and lets them go on when the ledger says that they may.

A thread of its own, because the heart may be waiting for a Redis that does not answer. Where the whole process cannot
act, because it is dead or stopped, the guardian does (guardian.py).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from cloudai_workers.lease import Lease, now_s
from cloudai_workers.runners.base import Runner, StopHandle
from cloudai_workers.running import Key

logger = logging.getLogger(__name__)

#: While the lease is over, jobs that were about to start are looked for so often, seconds.
_LOOK_EVERY_S = 0.25


class LeaseKeeper:
    """Pauses jobs when the lease runs out. Called by the heart and by the threads of jobs."""

    def __init__(
        self, lease: Lease, runner: Runner, *, jobs: Callable[[], list[Key]], tenant: Callable[[], bool], pauses: bool
    ) -> None:
        """Make a keeper.

        Args:
            lease: what renewals have made of the clock.
            runner: pauses and resumes.
            jobs: the jobs that run now.
            tenant: whether this incarnation still looks after the jobs of its node on this machine.
            pauses: False: jobs run on whatever happens (`node.on_disconnect`).

        """
        self.lease = lease
        self._runner = runner
        self._jobs = jobs
        self._tenant = tenant
        self._pauses = pauses
        self._lock = threading.RLock()
        self._changed = threading.Event()
        self._stopping = False
        #: Since when each is paused, by `now_s`.
        self._paused: dict[Key, float] = {}
        self._thread = threading.Thread(target=self._run, name="cloudai-lease", daemon=True)

    def start(self) -> None:
        """Begin to watch the clock."""
        if self._pauses:
            self._thread.start()

    def stop(self) -> None:
        """The node leaves in good order."""
        self._stopping = True
        self._changed.set()

    def renewed(self, sent: float) -> None:
        """A heartbeat that was sent at `sent` (by `now_s`) came through. When this returns, nothing more is paused."""
        with self._lock:
            self.lease.renewed(sent)
        self._changed.set()

    def paused(self) -> dict[Key, float]:
        """The paused jobs, and for how many seconds each has been."""
        now = now_s()
        return {key: max(0.0, now - since) for key, since in self._paused.items()}

    def resume(self, key: Key) -> None:
        """Let a paused job go on: the ledger has said that it is still ours. The runner's errors leave it paused."""
        with self._lock:
            since = self._paused.get(key)
            if since is None:
                return
            self._runner.resume(*key)
            del self._paused[key]
        logger.warning("job-resumed task=%s attempt=%d paused=%.1f", *key, now_s() - since)

    def forget(self, key: Key) -> None:
        """A job is ended, paused or not."""
        self._paused.pop(key, None)

    def wait_valid(self, control: StopHandle) -> None:
        """Return when a job may start: while the lease is over it would have to be paused at once; or it is stopped."""
        while self._pauses and now_s() >= self.lease.pause_at and control.reason is None and not self._stopping:
            self._changed.wait(_LOOK_EVERY_S)

    def _run(self) -> None:
        while not self._stopping:
            self._changed.clear()
            ahead = self.lease.pause_at - now_s()
            if ahead <= 0:
                self._pause_all()
                ahead = _LOOK_EVERY_S
            self._changed.wait(ahead)

    def _pause_all(self) -> None:
        for key in self._jobs():
            with self._lock:
                now = now_s()
                if now < self.lease.pause_at or key in self._paused or not self._tenant():
                    continue
                # Where this process could not act in time, the guardian did.
                since = min(now, self.lease.guard_at)
                try:
                    if not self._runner.pause(*key, ago_s=now - since):
                        continue
                except Exception:
                    logger.warning("job-not-paused task=%s attempt=%d: tried again", *key, exc_info=True)
                    continue
                self._paused[key] = since
            logger.warning(
                "job-paused task=%s attempt=%d: this node could not renew its lease, and others may be given the job",
                *key,
            )
