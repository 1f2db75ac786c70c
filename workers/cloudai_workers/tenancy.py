"""Which incarnation of a node looks after its jobs on this machine.

A new incarnation takes the tenancy over before it touches a job; from then on whoever served the old one, its guardian
or a worker that was only stopped, keeps its hands off. The standard library alone: the guardian is small.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

#: Between two looks at a lock that somebody holds, seconds.
_LOOK_EVERY_S = 0.05


class Tenancy:
    """The file with the tenant's incarnation, and a lock under which the guardian acts and the tenant changes."""

    def __init__(self, folder: Path, namespace: str, incarnation: str) -> None:
        self._incarnation = incarnation
        self._file = folder / f"tenant-{namespace}"
        self._lock_file = folder / f"tenant-{namespace}.lock"

    def take(self, patience_s: float = 30.0) -> None:
        """Become the tenant. Waits for an action of the former one's guardian, but not for ever.

        Raises:
            OSError: the folder cannot be written.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(patience_s):
            draft = self._file.with_suffix(f".{os.getpid()}")
            draft.write_text(self._incarnation, encoding="utf-8")
            draft.replace(self._file)

    def holds(self) -> bool:
        """Whether no other incarnation has taken over."""
        try:
            return self._file.read_text(encoding="utf-8") == self._incarnation
        except OSError:
            return True

    @contextlib.contextmanager
    def acting(self) -> Iterator[bool]:
        """While the block runs nobody takes over; its value says whether somebody has already."""
        with self._locked(None):
            yield self.holds()

    @contextlib.contextmanager
    def _locked(self, patience_s: float | None) -> Iterator[None]:
        deadline = None if patience_s is None else time.monotonic() + patience_s
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    # A guardian that is stopped itself holds it for ever, and does nothing with it.
                    if deadline is not None and time.monotonic() > deadline:
                        break
                    time.sleep(_LOOK_EVERY_S)
            yield
        finally:
            os.close(descriptor)
