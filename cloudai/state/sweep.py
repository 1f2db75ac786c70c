"""The sweep: what only time brings about. One node at a time does it; any may."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis

from cloudai.names import Keys
from cloudai.state.scripts import Scripts

#: Seconds between two sweeps of a deployment, whoever does them.
SWEEP_INTERVAL_S = 0.5
#: A node that is gone so long is forgotten.
FORGET_AFTER_S = 86_400.0
#: Items of one kind that one sweep handles, so that it never blocks Redis for long.
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did."""

    #: False: somebody else swept a moment ago.
    done: bool
    #: Tasks that wait for capacity again (ETA reached, node lost).
    moved: int
    #: Ended tasks whose result nobody has stored yet.
    unsettled: tuple[str, ...]
    #: Lines for the operator.
    log: tuple[str, ...]
    #: Tasks that wait in all.
    waiting: int


class Sweep:
    """Typed access to the sweep's script."""

    def __init__(
        self, client: Redis, keys: Keys, scripts: Scripts, *, heartbeat_timeout_s: float, lease_margin_s: float,
        max_attempts: int, finished_ttl_s: int,
    ) -> None:  # fmt: skip
        self._client = client
        self._keys = keys
        self._scripts = scripts
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._lease_margin_s = lease_margin_s
        self._max_attempts = max_attempts
        self._finished_ttl_s = finished_ttl_s

    def run(self) -> Swept:
        """Move due ETA tasks, expire, judge silent nodes and place their tasks elsewhere, list unsettled results.

        A node silent for its timeout gets nothing new and loses what it has not claimed; silent for its lease and a
        margin, it is lost and its running tasks wait again (see Fleet.register for those that do not). After a gap in
        which nobody swept (Redis was away), no node is judged for a timeout and a margin. A node that left or was lost
        is forgotten after a day. Whole messages in the list of a lost node go to the place queue.
        """
        reply = self._scripts.sweep.run(
            self._client, self._keys.prefix, SWEEP_INTERVAL_S, self._heartbeat_timeout_s, self._max_attempts,
            self._finished_ttl_s, _BATCH, FORGET_AFTER_S, self._lease_margin_s,
        )  # fmt: skip
        if reply[0] == b"busy":
            return Swept(False, 0, (), (), 0)
        _, moved, unsettled, log, waiting = reply
        return Swept(
            True, int(moved), tuple(i.decode() for i in unsettled), tuple(line.decode() for line in log), int(waiting)
        )
