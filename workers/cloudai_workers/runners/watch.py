"""Waiting for a job's end, its time limit or a stop, whichever comes first, without polling."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum, auto

from cloudai_workers.runners.base import StopHandle

#: A process that slept through a time limit by so much was stopped itself, and hears first whether the job was, too.
#: Seconds.
STALLED_S = 1.0
#: Seconds until the first look at a running job, and between later ones. Short jobs are never looked at.
FIRST_LOOK_S = 0.25
LOOK_EVERY_S = 1.0


class Outcome(Enum):
    """Why the waiting was over."""

    ENDED = auto()
    STOPPED = auto()
    TIME_LIMIT = auto()


class Watch:
    """Watches over one running job. Time that it was paused does not count."""

    def __init__(self, control: StopHandle, timeout_s: float | None) -> None:
        self._control = control
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._ended_at: float | None = None
        self._begun = time.monotonic()
        self._paused_since: float | None = None
        self._paused_s = 0.0

    def begin(self, elapsed_s: float = 0.0, paused_s: float = 0.0) -> None:
        """The job runs, since `elapsed_s` seconds, of which it was paused for `paused_s`."""
        with self._changed:
            self._begun = time.monotonic() - elapsed_s
            self._paused_s = paused_s

    def ended(self) -> None:
        """The job is over. Called by whoever waits for it."""
        with self._changed:
            if self._ended_at is None:
                self._ended_at = time.monotonic()
            self._changed.notify_all()

    def pause(self, ago_s: float = 0.0) -> None:
        """The job is frozen from now on, or has been for `ago_s` seconds."""
        with self._changed:
            if self._paused_since is None:
                self._paused_since = max(self._begun, time.monotonic() - ago_s)
            self._changed.notify_all()

    def resume(self) -> None:
        """The job goes on."""
        with self._changed:
            self._paused_s = self._paused_now()
            self._paused_since = None
            self._changed.notify_all()

    @property
    def paused_s(self) -> float:
        """Seconds that the job was paused so far."""
        with self._changed:
            return self._paused_now()

    @property
    def elapsed_s(self) -> float:
        """Seconds that the job ran so far, or until it ended, without pauses."""
        with self._changed:
            until = time.monotonic() if self._ended_at is None else self._ended_at
            return max(0.0, until - self._begun - self._paused_now())

    def _paused_now(self) -> float:
        since = self._paused_since
        return self._paused_s + (time.monotonic() - since if since is not None else 0.0)

    def _remaining_s(self) -> float | None:
        """Seconds to the time limit; None when there is none, or while paused."""
        if self._timeout_s is None or self._paused_since is not None:
            return None
        return self._timeout_s - (time.monotonic() - self._begun - self._paused_s)

    def wait(self, look: Callable[[], None] | None = None) -> Outcome:
        """Wait for the end, a stop or the time limit; call `look` now and then meanwhile."""
        self._control.on_stop(self._wake)
        try:
            next_look = time.monotonic() + FIRST_LOOK_S
            while True:
                with self._changed:
                    if self._outcome() is Outcome.TIME_LIMIT and (self._remaining_s() or 0.0) < -STALLED_S:
                        self._changed.wait(STALLED_S)
                    outcome = self._outcome()
                    if outcome is not None:
                        return outcome
                    waits = [self._remaining_s(), max(0.0, next_look - time.monotonic()) if look else None]
                    self._changed.wait(min((w for w in waits if w is not None), default=None))
                    if self._outcome() is not None:
                        continue
                if look is not None and time.monotonic() >= next_look:
                    look()
                    next_look = time.monotonic() + LOOK_EVERY_S
        finally:
            self._control.forget(self._wake)

    def _outcome(self) -> Outcome | None:
        if self._ended_at is not None:
            return Outcome.ENDED
        if self._control.reason is not None:
            return Outcome.STOPPED
        remaining = self._remaining_s()
        if remaining is not None and remaining <= 0:
            return Outcome.TIME_LIMIT
        return None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_ended(self, seconds: float) -> bool:
        """After a kill: wait for the end itself, bounded. True when it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended_at is not None, seconds)
