"""What this node holds by the ledger's word and by its own: claims, from delivery to the report of their end.

A claim whose answer was lost on the way runs nowhere, although the ledger says running; a frame that Redis hands
out twice would run twice. Both show when the two words are compared.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery import states
from celery.exceptions import Ignore
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import RedisError

from cloudai import names
from cloudai.deployment import Deployment
from cloudai.state.attempts import Claim
from cloudai_workers.fence import Hearing
from cloudai_workers.overload import OverloadClock

logger = logging.getLogger(__name__)

#: A claim that nobody here knows of, so long after it was made, is given back. Seconds.
UNKNOWN_AFTER_S = 5.0
#: Between two attempts to ask the ledger whose attempt counts, seconds.
_RETRY_S = 0.5

_OUTCOMES = {states.SUCCESS: names.SUCCEEDED, states.FAILURE: names.FAILED, states.REVOKED: names.CANCELLED}


class Holding:
    """The claims of one incarnation of a node."""

    def __init__(
        self,
        app: Any,
        deployment: Deployment,
        node: str,
        incarnation: str,
        hearing: Hearing,
        overload: OverloadClock,
    ) -> None:
        self._app = app
        self._deployment = deployment
        self._node = node
        self._incarnation = incarnation
        self._hearing = hearing
        self._overload = overload
        self._held: dict[tuple[str, int], Claim] = {}
        #: The overload clock when each was claimed.
        self._overload_then: dict[tuple[str, int], float] = {}

    def take(self, claim: Claim) -> str | None:
        """Note a claim. Returns "" to run it, its outcome if that is known already, None if it runs here already."""
        key = (claim.task_id, claim.attempt)
        if key in self._held:
            logger.warning("claim-doubled task=%s attempt=%d: it runs here already", *key)
            return None
        self._held[key] = claim
        self._overload_then[key] = self._overload.overload_s()
        return self._known_outcome(claim)

    def drop(self, task_id: str, attempt: int) -> None:
        """The ledger knows that this attempt has ended, or was given back."""
        self._held.pop((task_id, attempt), None)
        self._overload_then.pop((task_id, attempt), None)

    def claim_of(self, task_id: str, attempt: int) -> Claim | None:
        """The claim, while it is held."""
        return self._held.get((task_id, attempt))

    def overload_of(self, task_id: str, attempt: int) -> float | None:
        """Seconds with a load above 1 since this attempt was claimed; None if it is not held."""
        then = self._overload_then.get((task_id, attempt))
        return None if then is None else self._overload.overload_s() - then

    def held(self) -> list[tuple[str, int]]:
        """Task id and attempt of every claim."""
        return list(self._held)

    def _known_outcome(self, claim: Claim) -> str:
        # A node that died between storing a result and telling the ledger: what is done must not be done again.
        if claim.attempt == 1:
            return ""
        try:
            if self._deployment.ledger.entry(claim.task_id).get("losses", "0") == "0":
                return ""
            return _OUTCOMES.get(self._app.backend.get_state(claim.task_id), "")
        except Exception:
            logger.exception("result-unreadable task=%s: it runs, although it may have ended before", claim.task_id)
            return ""

    def give_back_unknown(self) -> None:
        """Unclaim what the ledger says runs here and nobody here knows of. Raises RedisError."""
        ledger, keys = self._deployment.ledger, self._deployment.keys
        now = self._deployment.view.now()
        for raw in ledger.client.smembers(keys.node_tasks(self._node)):
            task_id = bytes_to_str(raw)
            entry = ledger.entry(task_id)
            ours = entry.get("state") == names.RUNNING and entry.get("incarnation") == self._incarnation
            if not ours or now - float(entry["claimed"]) < UNKNOWN_AFTER_S:
                continue
            attempt = int(entry["attempt"])
            if (task_id, attempt) not in self._held and ledger.unclaim(task_id, attempt):
                logger.warning("claim-unknown task=%s attempt=%d: its answer was lost; given back", task_id, attempt)

    def give_back_all(self) -> int:
        """Unclaim what is left when the pool has ended; returns how many were given back. Raises RedisError."""
        return sum(self._deployment.ledger.unclaim(*key) for key in self.held())

    def fenced(self, task_id: str, attempt: int, body: Callable[[], Any]) -> Any:
        """Run a body; Ignore in place of its outcome where another attempt has taken over (it must store nothing)."""
        begun = time.monotonic()
        try:
            outcome = body()
        except Exception:
            self._fence(task_id, attempt, begun)
            raise
        self._fence(task_id, attempt, begun)
        return outcome

    def _fence(self, task_id: str, attempt: int, begun: float) -> None:
        # A question for each task would cost as much as the task; only a node that was silent can have lost one.
        while self._hearing.lapsed_since(begun):
            try:
                if not self._deployment.ledger.is_current(task_id, attempt):
                    logger.warning("result-fenced task=%s attempt=%d: another attempt has taken over", task_id, attempt)
                    raise Ignore
            except RedisError as error:
                # Its result could not be stored either: wait, and ask then.
                logger.warning("redis-away task=%s: its outcome waits (%s)", task_id, error)
                time.sleep(_RETRY_S)
            else:
                return
