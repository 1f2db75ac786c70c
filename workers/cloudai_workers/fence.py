"""What a pool's child process must know of its node: whether the fleet may have given the node's tasks to others.

Child processes were forked before and share no memory with the heart that knows; so two numbers lie in memory
that they do share.
"""

from __future__ import annotations

import mmap
import struct
import time

_FORMAT = struct.Struct("dd")


class Hearing:
    """When the fleet last heard of this node; shared with the processes forked after it was made."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._memory = mmap.mmap(-1, _FORMAT.size)
        self._write(time.monotonic(), float("-inf"))

    def heard(self) -> bool:
        """A heartbeat came through; returns whether the one before was too long ago."""
        now = time.monotonic()
        last, lapsed = self._read()
        late = now - last > self._timeout_s
        self._write(now, now if late else lapsed)
        return late

    def lapsed_since(self, moment: float) -> bool:
        """Whether the node was silent for its timeout at some time after `moment` (monotonic seconds), or is now."""
        last, lapsed = self._read()
        return lapsed >= moment or time.monotonic() - last > self._timeout_s

    def _read(self) -> tuple[float, float]:
        last, lapsed = _FORMAT.unpack(self._memory[: _FORMAT.size])
        return last, lapsed

    def _write(self, last: float, lapsed: float) -> None:
        self._memory[: _FORMAT.size] = _FORMAT.pack(last, lapsed)
