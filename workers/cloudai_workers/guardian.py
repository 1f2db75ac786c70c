"""The guardian: a small process beside a worker that pauses the node's jobs when the worker cannot.

The worker tells it through a socket until when the lease lasts. A worker that is stopped, or starved, tells nothing
more: when the lease is about to end the jobs are paused, and the worker resumes or ends them when it wakes. A worker
that is dead closes the socket: the jobs are paused in the same way, and ended when the fleet may have given them to
others, unless a new incarnation of the node has taken them over by then (tenancy.py). The guardian ends when nothing is
left to guard. It runs in a session of its own and outlives a kill -9 of the worker.

    worker -> guardian   used                        the node has jobs from now on
                         renew SEQ PAUSE_AT OVER_AT  a renewal: when to pause, when the jobs are lost (`lease.now_s`)
    guardian -> worker   SEQ                         done with everything before that
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudai_workers.guarded_jobs import TROUBLE, Containers, GuardedJob, GuardedJobs, Processes
from cloudai_workers.lease import now_s
from cloudai_workers.pause_notes import PauseNotes
from cloudai_workers.tenancy import Tenancy

#: Between two looks at jobs that are to be paused, or that a dead worker has left, seconds.
LOOK_EVERY_S = 1.0
#: How long after the end of the lease an engine that does not answer is asked again and again, seconds.
GIVE_UP_AFTER_S = 600.0


class Guardian:
    """Watches over the jobs of one incarnation of a node."""

    def __init__(
        self,
        worker: socket.socket,
        worker_pid: int,
        jobs: GuardedJobs,
        tenancy: Tenancy,
        notes: PauseNotes,
        *,
        node: str,
        pauses: bool,
    ) -> None:
        self._worker = worker
        self._jobs = jobs
        self._tenancy = tenancy
        self._notes = notes
        self._node = node
        self._pauses = pauses
        self._used = False
        self._dead = False
        self._pause_at = self._over_at = float("inf")
        self._unread = b""
        self._trouble = ""
        self._poll = select.poll()
        self._poll.register(worker, select.POLLIN)
        # A child that the worker forked may hold the socket open.
        self._pidfd: int | None = None
        try:
            self._pidfd = os.pidfd_open(worker_pid)
            self._poll.register(self._pidfd, select.POLLIN)
        except ProcessLookupError:
            self._dead = True
        except OSError:
            pass

    def run(self) -> None:
        """Until nothing is left to guard."""
        while True:
            self._listen(self._wait_s())
            try:
                if self._step():
                    return
            except TROUBLE as error:
                if self._dead and now_s() > self._over_at + GIVE_UP_AFTER_S:
                    self._say("guardian-gave-up", f"its jobs may still be there: {error}")
                    return
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    self._say("guardian-troubled", f"tried again every {LOOK_EVERY_S:g} s: {error}")

    def _wait_s(self) -> float | None:
        if self._dead:
            return LOOK_EVERY_S
        if not self._used or self._pause_at == float("inf") or not self._pauses:
            return None
        return max(LOOK_EVERY_S if now_s() >= self._pause_at else 0.0, self._pause_at - now_s())

    def _listen(self, wait_s: float | None) -> None:
        if self._dead:
            time.sleep(wait_s or 0.0)
            return
        for descriptor, _ in self._poll.poll(None if wait_s is None else wait_s * 1000 + 1):
            if descriptor == self._pidfd:
                self._read(0.2)  # its last words
                self._died()
            else:
                self._read(None)
            if self._dead:
                return

    def _read(self, timeout_s: float | None) -> None:
        self._worker.settimeout(timeout_s)
        try:
            data = self._worker.recv(65536)
        except TimeoutError:
            return
        except OSError:
            data = b""
        if not data:
            self._died()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            word, *rest = line.split()
            if word == b"used":
                self._used = True
            elif word == b"renew":
                self._pause_at, self._over_at = float(rest[1]), float(rest[2])
                with contextlib.suppress(OSError):
                    self._worker.send(rest[0] + b"\n", socket.MSG_DONTWAIT)

    def _died(self) -> None:
        self._dead = True

    def _step(self) -> bool:
        """Do what is due; whether everything is done."""
        now = now_s()
        if self._dead and not self._used:
            return True
        if self._used and now >= self._pause_at and self._pauses and not (self._dead and now >= self._over_at):
            with self._tenancy.acting() as ours:
                if ours:
                    self._pause_all()
        if not self._dead:
            return False
        if not self._tenancy.holds():
            return True  # a new incarnation looks after them
        if now < self._over_at:
            return not self._jobs.found()
        with self._tenancy.acting() as ours:
            if ours:
                self._end_all()
        return True

    def _pause_all(self) -> None:
        self._each([job for job in self._jobs.found() if job.running], self._pause)

    def _pause(self, job: GuardedJob) -> None:
        self._jobs.pause(job)
        self._notes.paused(job.name)
        why = "its worker is dead" if self._dead else "its worker has not renewed the lease"
        self._say("guardian-paused", f"job={job.name}: {why}, and others may be given the job")

    def _end_all(self) -> None:
        self._each(self._jobs.found(), self._end)

    def _end(self, job: GuardedJob) -> None:
        self._jobs.end(job)
        self._notes.forget(job.name)
        self._say("guardian-ended", f"job={job.name}: its worker is dead and its lease is over")

    def _each(self, jobs: list[GuardedJob], act: Callable[[GuardedJob], None]) -> None:
        """Do something to every job: trouble with one must not spare the others. Raises the last of TROUBLE."""
        trouble: Exception | None = None
        for job in jobs:
            try:
                act(job)
            except TROUBLE as error:
                trouble = error
        if trouble is not None:
            raise trouble

    def _say(self, event: str, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(f"{event} node={self._node} {text}", file=sys.stderr, flush=True)


def jobs_of(config: dict[str, Any]) -> GuardedJobs:
    """The jobs that a configuration tells of (guard.py writes it)."""
    if config["runner"] == "process":
        return Processes(Path(config["folder"]) / "processes", config["namespace"], config["node"])
    return Containers(config["engine"], config["namespace"], config["node"])


def main(text: str) -> None:
    """The program; `text` is the configuration as JSON, the worker's socket is descriptor 0."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends by itself, and must not end before
    config = json.loads(text)
    folder = Path(config["folder"])
    tenancy = Tenancy(folder, config["namespace"], config["incarnation"])
    with socket.socket(fileno=0) as worker:
        Guardian(
            worker, config["pid"], jobs_of(config), tenancy, PauseNotes(folder),
            node=config["node"], pauses=config["pauses"],
        ).run()  # fmt: skip
