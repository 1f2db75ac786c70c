"""What one process knows of the fleet: a snapshot of the nodes, tau and the parameters, kept fresh from Redis.

The scripts return what changed since the view's version with every placement, so a busy process needs hardly any
refresh of its own. A view may be behind: the place script checks again, in Redis.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np

from cloudai.scheduling.errors import InvalidParameters
from cloudai.scheduling.learning import Learned, expected_runtime
from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.parameters import GAParams, differences
from cloudai.scheduling.snapshot import FleetSnapshot
from cloudai.scheduling.task_types import INITIAL_TAU
from cloudai.state.fleet import FixedFields, Fleet, read_changes, read_row
from cloudai.state.sweep import FORGET_AFTER_S

logger = logging.getLogger(__name__)

#: A decision refreshes the view when its last news are older than this.
MAX_AGE_S = 0.25
#: Rows that one refresh reads; a larger fleet is read in several.
_ROWS = 2000


class FleetView:
    """Snapshot, tau, parameters and the server's clock, as this process knows them. Use it under `lock`."""

    def __init__(
        self, fleet: Fleet, *, params_reload_interval_s: float, family_after: int = 3, max_families: int = 10_000
    ) -> None:
        self._fleet = fleet
        self._family_after = family_after
        self._max_families = max_families
        self._params_reload_interval_s = params_reload_interval_s
        self.lock = threading.RLock()
        self.snapshot = FleetSnapshot()
        #: Fleet version up to which the snapshot has every change.
        self.version = 0
        self.tau: dict[str, float] = {str(k): v for k, v in INITIAL_TAU.items()}
        self._types: dict[str, Learned] = {}
        self._shares: dict[str, Learned] = {}
        #: What is known of the families that have enough samples, by `type:family`; oldest change first.
        self._families: dict[str, Learned] = {}
        self._families_version = 0
        #: The parameters in force; the defaults until some were published.
        self.parameters: GAParams = GAParams()
        self._assumed: dict[str, NodeState] = {}
        self._fixed: dict[str, FixedFields] = {}
        self._clock_offset_s = time.time() - time.monotonic()
        self._refreshed = float("-inf")
        self._parameters_read = float("-inf")
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        # Another thread may have held the lock when this process was forked.
        self.lock = threading.RLock()

    def now(self) -> float:
        """Time of the Redis server, epoch seconds, as of the last news."""
        return time.monotonic() + self._clock_offset_s

    def saw_time(self, now: float) -> None:
        """Note the server's time from an answer that has just come."""
        self._clock_offset_s = now - time.monotonic()

    def refresh(self, max_age_s: float = 0.0) -> None:
        """Read what changed, unless that was done less than `max_age_s` ago."""
        started = time.monotonic()
        if started - self._refreshed < max_age_s:
            return
        with self.lock:
            due = started - self._parameters_read >= self._params_reload_interval_s
            known = 0 if self._parameters_read == float("-inf") else self.parameters.version
            while True:
                news = self._fleet.refresh(
                    self.version, _ROWS, known if due else None, self._families_version
                )
                self.saw_time(news.now)
                if news.version < self.version:
                    self._start_over()
                    continue
                self._take_families(news.families)
                if self.apply(news.changes) < _ROWS and len(news.families) < _ROWS:
                    break
            self.tau.update({kind: known.tau for kind, known in news.types.items()})
            self._types, self._shares = news.types, news.shares
            if due:
                self._parameters_read = started
                if news.parameters and news.parameters_version != known:
                    self._take_parameters(news.parameters, news.parameters_version)
            self._refreshed = started
            self._forget_gone(news.now)

    def _forget_gone(self, now: float) -> None:
        """Forget who left so long ago that the sweep has forgotten it too, and tells nobody of it."""
        snapshot = self.snapshot
        for row in np.flatnonzero(snapshot.gone & (snapshot.heartbeat < now - FORGET_AFTER_S))[::-1]:
            name = snapshot.names[row]
            snapshot.remove(name)
            self._fixed.pop(name, None)

    def expire(self) -> None:
        """Make the next decision read what changed, however recently that was done."""
        self._refreshed = float("-inf")

    def _start_over(self) -> None:
        """Redis has lost its data: what is known of the nodes is no longer so."""
        logger.warning("fleet-lost: Redis knows an older fleet than this process; it is read anew")
        for name in list(self.snapshot.names):
            self.snapshot.remove(name)
        self._fixed.clear()
        self._assumed.clear()
        self._families.clear()
        self.version = self._families_version = 0

    def tau_of(self, task_type: str, family: str | None, window_s: float = inf) -> float:
        """Expected runtime, s: the family's where it has enough samples, else the type's (spec section 2).

        With `window_s`, the time from arrival to deadline: what that foretells, where it has been seen to say more.
        """
        known = self._types.get(task_type) if family is None else self._families.get(f"{task_type}:{family}")
        if known is None:
            known = self._types.get(task_type)
        if known is None:
            return self.tau[task_type]
        return expected_runtime(known, self._shares.get(task_type), window_s)

    def _take_families(self, changed: Sequence[tuple[int, str, Learned]]) -> None:
        for version, name, known in changed:
            self._families_version = version
            self._families.pop(name, None)
            if known.samples >= self._family_after:
                self._families[name] = known
        # Redis forgets the families that were learned longest ago, and tells nobody.
        while len(self._families) > self._max_families:
            del self._families[next(iter(self._families))]

    def _take_parameters(self, text: str, version: int) -> None:
        try:
            parameters = replace(GAParams.from_json(text), version=version)
        except InvalidParameters as error:
            logger.error("parameters-refused version=%d: the ones in force stay. %s", version, error)
            return
        for line in differences(self.parameters, parameters):
            logger.info("parameters-changed version=%d %s", version, line)
        self.parameters = parameters

    def apply(self, changes: str) -> int:
        """Take changed rows into the snapshot, nodes that are new to it are looked up; returns how many rows there
        were. A row that is older than what is known of its node changes nothing: the answer came late.
        """
        rows = read_changes(changes)
        if not rows:
            return 0
        with self.lock:
            unknown = [row[0] for row in rows if self._is_unknown(row)]
            if unknown:
                self._fixed.update(self._fleet.fixed(unknown))
            states = []
            for row in rows:
                fixed = self._fixed.get(row[0])
                known = self.snapshot.index.get(row[0])
                if known is not None and self.snapshot.states[known].version > int(row[1]):
                    continue
                # A node that was forgotten between the two reads, or is being registered anew: the next change tells.
                if fixed is not None and row[2] == fixed.announced:
                    states.append(read_row(row, fixed))
            self.snapshot.apply(states)
            self.version = max(self.version, int(rows[-1][1]))
        return len(rows)

    def assume(self, state: NodeState) -> None:
        """Decide as if this row were true already, until `forget_assumptions`."""
        self._assumed.setdefault(state.name, self.snapshot.states[self.snapshot.index[state.name]])
        self.snapshot.apply([state])

    def forget_assumptions(self) -> None:
        """Go back to what Redis has said last of every row that was assumed."""
        restored = []
        for name, state in self._assumed.items():
            known = self.snapshot.states[self.snapshot.index[name]]
            # A row that Redis has sent meanwhile carries a later version.
            if known.version == state.version:
                restored.append(state)
        self._assumed.clear()
        self.snapshot.apply(restored)

    def _is_unknown(self, row: Sequence[str]) -> bool:
        fixed = self._fixed.get(row[0])
        return fixed is None or fixed.announced != row[2]
