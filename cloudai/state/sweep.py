"""The sweep: what only time brings about. One node at a time does it; any may."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis

from cloudai.names import Keys
from cloudai.state.scripts import Scripts

#: Seconds between two sweeps of a deployment, whoever does them.
SWEEP_INTERVAL_S = 0.5
#: Nodes that may ask for a sweep at every tick; of a larger fleet about so many ask in that time.
ASKING_NODES = 8
#: However many nodes there are, each asks within this time, seconds: they may all die but one.
ASKS_WITHIN_S = 5.0
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
    #: Nodes that are heard of, or not given up yet: those that ask for a sweep.
    nodes: int = 0


def asks_within_s(nodes: int) -> float:
    """How long a node of so many may leave the sweep to the others, seconds: it asks at some moment within this.

    Were all to ask at every tick, thousands of nodes would keep Redis busy with questions of which two a second count.
    """
    return 0.0 if nodes <= ASKING_NODES else min(ASKS_WITHIN_S, 2 * SWEEP_INTERVAL_S * nodes / ASKING_NODES)


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
            return Swept(False, 0, (), (), 0, int(reply[1]))
        _, nodes, moved, unsettled, log, waiting = reply
        return Swept(
            True, int(moved), tuple(i.decode() for i in unsettled), tuple(line.decode() for line in log), int(waiting),
            int(nodes),
        )  # fmt: skip
