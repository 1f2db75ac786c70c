"""What a node does now and then for the fleet, and to keep its own word and the ledger's the same."""

from __future__ import annotations

import logging
import random
import time
from typing import Any

from cloudai.deployment import Deployment
from cloudai.endings import settle
from cloudai.state.sweep import asks_within_s
from cloudai_workers.adoption import Adoption
from cloudai_workers.clerk import Clerk
from cloudai_workers.holding import Holding

logger = logging.getLogger(__name__)

#: A placed task whose doorbell is gone so long is rung for again; and how often words are compared. Seconds.
RING_AFTER_S = 5.0


class Upkeep:
    """Used by the heart's thread alone. Its methods raise RedisError."""

    def __init__(self, app: Any, node: str, holding: Holding, adoption: Adoption, clerk: Clerk) -> None:
        self._app = app
        self._deployment: Deployment = app.deployment
        self._node = node
        self._holding = holding
        self._adoption = adoption
        self._clerk = clerk
        self._compared = time.monotonic()
        self._asks_from = float("-inf")

    def sweep(self) -> None:
        """Do what only time brings about, if it is this node's turn (state/sweep.py); place who waits then."""
        now = time.monotonic()
        if now < self._asks_from:
            return
        swept = self._deployment.sweep.run()
        # One that asks late is no worse than one that asks at once: another one does. See asks_within_s.
        self._asks_from = now + random.uniform(0.0, asks_within_s(swept.nodes))
        for line in swept.log:
            logger.warning("sweep %s", line)
        for task_id in swept.unsettled:
            try:
                settle(self._app, task_id)
            except Exception:
                # One that cannot be told must not keep the others back; the next sweep tries again.
                logger.exception("settle-failed task=%s: its caller waits on; the next sweep tries again", task_id)
        if swept.moved or swept.waiting:
            self._clerk.dispatch()

    def compare(self) -> None:
        """Every few seconds: ring again, give back what nobody here knows of, end orphans, audit reservations."""
        now = time.monotonic()
        if now - self._compared < RING_AFTER_S:
            return
        self._compared = now
        for task_id in self._deployment.fleet.ring(self._node, RING_AFTER_S):
            logger.warning("doorbell-rung-again node=%s task=%s", self._node, task_id)
        self._holding.give_back_unknown()
        self._adoption.end_orphans()
        leak = self._deployment.fleet.audit(self._node)
        if leak:
            logger.error("reservation-leak node=%s: %s; put right", self._node, leak)
