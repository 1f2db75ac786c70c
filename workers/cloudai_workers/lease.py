"""How long a node's jobs may run although nobody hears of it, by its own clock.

A renewal counts from the moment it was sent: the server's own count begins later, never earlier. What the fleet does
after the lease and its margin must find the jobs paused.
"""

from __future__ import annotations

import time

#: The guardian acts so much later than the worker would have, seconds at most.
GUARD_SLACK_S = 1.0


def now_s() -> float:
    """Seconds on a clock that nobody sets and that runs on while the machine is suspended; one for all processes."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """The moments that follow from the last renewal, on the clock of `now_s`."""

    def __init__(self, lease_s: float, margin_s: float) -> None:
        self._lease_s = lease_s
        self._margin_s = margin_s
        #: From a renewal to the pause, seconds: the lease less a margin, in which the pausing is done.
        self.pause_after_s = lease_s - min(margin_s, lease_s / 4)
        self.renewed(now_s())

    def renewed(self, sent: float) -> None:
        """A renewal that was sent at `sent` came through."""
        #: The worker pauses its jobs.
        self.pause_at = sent + self.pause_after_s
        #: The guardian does, if the worker could not.
        self.guard_at = self.pause_at + min(GUARD_SLACK_S, self._margin_s / 4)
        #: The fleet may have given the jobs to others: what is left of a dead worker is ended.
        self.over_at = sent + self._lease_s + self._margin_s
