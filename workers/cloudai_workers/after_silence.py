"""What becomes of the jobs of a node that was silent: the ledger says which are still its own, the others end."""

from __future__ import annotations

import logging
import time

from cloudai.state.ledger import Ledger
from cloudai_workers.guard import Guard
from cloudai_workers.keeper import LeaseKeeper
from cloudai_workers.lease import now_s
from cloudai_workers.running import Key, running_jobs, supersede
from cloudai_workers.tenancy import Tenancy

logger = logging.getLogger(__name__)

#: How soon a new incarnation on this machine takes the jobs over once it has joined, seconds at most.
HAND_OVER_S = 10.0
#: Between two looks at whether it has, seconds.
_LOOK_EVERY_S = 0.1


class AfterSilence:
    """Used by the heart's thread alone. Its methods raise RedisError where they ask the ledger."""

    def __init__(self, node: str, ledger: Ledger, keeper: LeaseKeeper, guard: Guard, tenancy: Tenancy) -> None:
        self._node = node
        self._ledger = ledger
        self._keeper = keeper
        self._guard = guard
        self._tenancy = tenancy

    def stop_superseded(self) -> None:
        """Stop the jobs whose tasks were placed elsewhere meanwhile; paused ones are left to `resume_paused`."""
        paused = self._keeper.paused()
        for key in running_jobs():
            if key not in paused and not self._ledger.is_current(*key):
                self._supersede(key)

    def resume_paused(self) -> None:
        """Redis answers again: what the ledger has left to this node goes on, the rest is ended."""
        if now_s() >= self._keeper.lease.pause_at:
            return  # the answer came too late to count for long
        paused = self._keeper.paused()
        if paused:
            self._guard.settled()  # else it might pause once more what is resumed here
        for key, paused_s in paused.items():
            if self._ledger.resume(*key, self._node, paused_s):
                self._keeper.resume(key)
            else:
                self._supersede(key)

    def let_go(self) -> None:
        """Another incarnation has the node: jobs that it looks after are left alone, those that it does not see end."""
        deadline = time.monotonic() + HAND_OVER_S
        while self._tenancy.holds() and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
        for key in running_jobs():
            self._supersede(key)

    def _supersede(self, key: Key) -> None:
        logger.warning("job-superseded task=%s attempt=%d: it is stopped here", *key)
        supersede(key)
        self._keeper.forget(key)
