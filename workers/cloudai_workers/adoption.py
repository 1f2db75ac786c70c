"""The jobs that an earlier incarnation of a node left on this machine: adopted, or ended.

The ledger gives a task whose job was found here to the new incarnation, with the next attempt; the task is claimed and
runs as any other, but attaches to the job in place of starting one. Until then the job is paused: what nobody has
claimed does not run. Everything else that was left is ended.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from cloudai.names import PLACED, RUNNING
from cloudai.state.ledger import Ledger
from cloudai_workers.runners.base import LiveJob, Runner

logger = logging.getLogger(__name__)


class Adoption:
    """What was left to one incarnation. Called by the thread that joins, then by the heart."""

    def __init__(self, runner: Runner, ledger: Ledger, node: str) -> None:
        self._runner = runner
        self._ledger = ledger
        self._node = node
        #: Jobs that were to be adopted, by task id.
        self._waiting: dict[str, LiveJob] = {}

    def found(self) -> list[LiveJob]:
        """The jobs that are there, running or just ended. Whatever the engine answers, the node can start."""
        try:
            return self._runner.adopt()
        except Exception as error:
            logger.warning("adoption-failed node=%s: what runs here cannot be listed (%s)", self._node, error)
            return []

    def attachable(self) -> list[tuple[str, int]]:
        """Task id and attempt of those that a task can attach to: what ended with its machine is to run again."""
        return [(job.task_id, job.attempt) for job in self.found() if not job.cut_off]

    def take_over(self, adopting: Collection[str]) -> None:
        """The node has joined, and these tasks are to attach to their jobs: pause those, end all others."""
        for job in self.found():
            if job.task_id in adopting:
                self._waiting[job.task_id] = job
                try:
                    self._runner.pause(job.task_id, job.attempt)
                except Exception as error:
                    logger.warning(
                        "leftover-not-paused node=%s task=%s attempt=%d: it runs on until its task attaches to it (%s)",
                        self._node, job.task_id, job.attempt, error,
                    )  # fmt: skip
                logger.warning(
                    "job-adopted node=%s task=%s attempt=%d: an earlier incarnation left it; its task attaches to it",
                    self._node, job.task_id, job.attempt,
                )  # fmt: skip
            elif not self._ledger.is_current(job.task_id, job.attempt):
                self._end(job, "an earlier incarnation left it, and its task has ended or was placed again")

    def end_orphans(self) -> None:
        """End the jobs whose tasks went elsewhere, or ended, before they attached. Raises RedisError."""
        for task_id, job in list(self._waiting.items()):
            entry = self._ledger.entry(task_id)
            here = entry.get("node") == self._node and entry.get("state") in (PLACED, RUNNING)
            if not here or entry.get("adopts") != f"{entry['attempt']}:{job.attempt}":
                del self._waiting[task_id]
                self._end(job, "its task went elsewhere or ended before it was begun again")

    def _end(self, job: LiveJob, why: str) -> None:
        try:
            if not self._runner.kill(job.task_id, job.attempt):
                return  # it has ended, or its task has attached to it and it bears a later attempt's name
        except Exception:
            logger.warning(
                "leftover-not-ended node=%s task=%s attempt=%d", self._node, job.task_id, job.attempt, exc_info=True
            )
            return
        logger.warning("leftover-ended node=%s task=%s attempt=%d: %s", self._node, job.task_id, job.attempt, why)
