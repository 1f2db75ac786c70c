"""What the channel hands to a node and takes back from it: claims, what cannot be read, what has not started."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.state import active_requests

from cloudai import names
from cloudai.endings import away, end_without_worker, repeat_chord_part
from cloudai.node_hooks import NodeHooks
from cloudai.state.attempts import Claim
from cloudai_workers.clerk import Clerk
from cloudai_workers.holding import Holding

logger = logging.getLogger(__name__)


class Deliveries(NodeHooks):
    """The hooks of one incarnation; see `NodeHooks` for what each is told."""

    def __init__(
        self, app: Any, incarnation: str, holding: Holding, clerk: Clerk, *, gives_back: Callable[[], bool]
    ) -> None:
        """Make them.

        Args:
            app: the node's application.
            incarnation: under which tasks are claimed.
            holding: what this node holds.
            clerk: to report ends to.
            gives_back: whether what has not started is to go elsewhere when the channel closes: the node is leaving,
                and its pool can be told not to start it.

        """
        self.incarnation = incarnation
        self._app = app
        self._holding = holding
        self._clerk = clerk
        self._gives_back = gives_back
        self._given_back: set[tuple[str, int]] = set()

    def claimed(self, claim: Claim) -> bool:
        """Whether it is to be delivered: it is not when it runs here already, or has ended before."""
        known = self._holding.take(claim)
        if known:
            logger.warning("result-known task=%s outcome=%s: it ended before its node was lost", claim.task_id, known)
            try:
                repeat_chord_part(self._app, claim.task_id, claim.message)
            except away(self._app.backend) as error:
                # Nobody knows of the claim from now on: it is given back, claimed again, and its chord told then.
                logger.warning("chord-waits task=%s: told of this end when Redis is back (%s)", claim.task_id, error)
                self._holding.drop(claim.task_id, claim.attempt)
                return False
            except Exception:
                logger.exception(
                    "chord-untold task=%s: the chord that it is part of may never end; cancel it", claim.task_id
                )
            self._clerk.ended(claim.task_id, claim.attempt, known, reason="ended before its node was lost")
        return known == ""

    def undecodable(self, claim: Claim, reason: str) -> None:
        """End it with a failure that its caller sees."""
        self.end_unreadable(claim.task_id, claim.attempt, ValueError(reason))

    def end_unreadable(self, task_id: str, attempt: int, error: Exception) -> None:
        """A claimed message cannot be run: store the failure, so that its caller does not wait for ever, and end it."""
        try:
            end_without_worker(self._app, task_id, self._app.deployment.ledger.message(task_id), error)
        finally:
            self._clerk.ended(task_id, attempt, names.FAILED, reason=str(error))

    def unplaceable(self, task_id: str, error: Exception) -> None:
        """Store the refusal as its result."""
        self._app.backend.mark_as_failure(task_id, error)

    def given_back(self, task_id: str, attempt: int) -> bool:
        """Whether it may be unclaimed because the channel closes: at shutdown, if its thread has not taken it.

        The prefork pool finishes what it was handed; a connection that broke changes nothing for what runs.
        """
        if not self._gives_back() or any(request.id == task_id for request in active_requests):
            return False
        self._given_back.add((task_id, attempt))
        return True

    def was_given_back(self, task_id: str, attempt: int) -> bool:
        """Whether a task was unclaimed after it had been handed to the pool: its thread must not start it."""
        return (task_id, attempt) in self._given_back

    def unclaimed(self, task_id: str, attempt: int) -> None:
        """It is held no longer."""
        self._holding.drop(task_id, attempt)

    def fenced(self, task_id: str, attempt: int, body: Callable[[], Any]) -> Any:
        """Run a body behind the fence; see `Holding.fenced`."""
        return self._holding.fenced(task_id, attempt, body)
