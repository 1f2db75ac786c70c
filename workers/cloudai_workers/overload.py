"""How long a node has been pressed beyond what it has: a clock that runs while its load is above 1 (spec section 7)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class OverloadClock:
    """Runs from one telemetry sample to the next as the earlier one said. Any thread may read it.

    What tasks have reserved never exceeds the node, so only the pressure can lift its load above 1.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._at = now()
        self._pressure = 0.0
        self._overload_s = 0.0
        self._excess_s = 0.0

    def tell(self, pressure: float) -> None:
        """The pressure from now on; NaN (not measured) counts as none."""
        with self._lock:
            self._advance()
            self._pressure = pressure if pressure == pressure else 0.0

    def overload_s(self) -> float:
        """Seconds with load above 1."""
        return self.read()[0]

    def read(self) -> tuple[float, float]:
        """Seconds with load above 1, and the integral of what was above 1, seconds."""
        with self._lock:
            self._advance()
            return self._overload_s, self._excess_s

    def _advance(self) -> None:
        now = self._now()
        if self._pressure > 1.0:
            self._overload_s += now - self._at
            self._excess_s += (self._pressure - 1.0) * (now - self._at)
        self._at = now
