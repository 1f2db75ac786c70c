"""Waiting for a condition: the one place where a test gives a machine time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Generous, since a test that fails must mean a defect: a busy machine takes many seconds to start a worker.
PATIENCE_S = 60.0


def until(condition: Callable[[], T], what: str | Callable[[], str] = "", timeout_s: float = PATIENCE_S) -> T:
    """Wait for a condition; its value, once it is true.

    Args:
        condition: asked every 20 ms.
        what: told when it does not come true; a function is asked only then.
        timeout_s: how long it may take.
    """
    end = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= end:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {timeout_s:g} s: {told or condition}")
        time.sleep(0.02)
