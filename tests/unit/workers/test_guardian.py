"""What the guardian does for the jobs of a dead worker when the engine has trouble with one of them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cloudai_workers import guardian
from cloudai_workers.guarded_jobs import GuardedJob
from cloudai_workers.guardian import Guardian
from cloudai_workers.lease import now_s
from cloudai_workers.pause_notes import PauseNotes
from cloudai_workers.tenancy import Tenancy


class Jobs:
    """Two jobs; the engine refuses whatever is to be done to the first, once."""

    def __init__(self) -> None:
        self.left = ["bad", "good"]
        self.done: list[str] = []
        self._refused = False

    def found(self) -> list[GuardedJob]:
        return [GuardedJob(name, running=True) for name in self.left]

    def pause(self, job: GuardedJob) -> None:
        self._do("paused", job)

    def end(self, job: GuardedJob) -> None:
        self._do("ended", job)

    def _do(self, what: str, job: GuardedJob) -> None:
        if job.name == "bad" and not self._refused:
            self._refused = True
            raise OSError("the engine answers 500")
        self.done.append(f"{job.name} {what}")
        self.left.remove(job.name)


@pytest.mark.parametrize(("over_in_s", "what"), [(3600.0, "paused"), (-1.0, "ended")])
def test_trouble_with_one_job_does_not_spare_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over_in_s: float, what: str
) -> None:
    monkeypatch.setattr(guardian, "LOOK_EVERY_S", 0.01)
    ours, theirs = socket.socketpair()
    tenancy = Tenancy(tmp_path, "t", "incarnation")
    tenancy.take()
    jobs = Jobs()
    with theirs:
        guard = Guardian(
            theirs, os.getpid(), jobs, tenancy, PauseNotes(tmp_path), node="one@t", pauses=what == "paused"
        )
        now = now_s()
        ours.send(b"used\nrenew 1 %.6f %.6f\n" % (now - 2.0, now + over_in_s))
        ours.close()  # the worker is dead
        guard.run()
    assert jobs.done == [f"good {what}", f"bad {what}"]
