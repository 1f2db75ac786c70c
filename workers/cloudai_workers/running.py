"""The container jobs that run in this process, and how each is stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cloudai_workers.runners.base import StopHandle, StopReason

#: Task id and attempt.
Key = tuple[str, int]

_lock = threading.Lock()
_handles: dict[Key, StopHandle] = {}


@contextmanager
def running(key: Key) -> Iterator[StopHandle]:
    """A handle to stop the job by, known to this process while the block runs."""
    handle = StopHandle()
    with _lock:
        _handles[key] = handle
    try:
        yield handle
    finally:
        with _lock:
            _handles.pop(key, None)


def running_jobs() -> list[Key]:
    """What runs now."""
    with _lock:
        return list(_handles)


def supersede(key: Key) -> None:
    """Stop a job whose task was placed elsewhere meanwhile; nothing happens if it has ended."""
    with _lock:
        handle = _handles.get(key)
    if handle is not None:
        handle.stop("another node has the task now", StopReason.SUPERSEDED)
