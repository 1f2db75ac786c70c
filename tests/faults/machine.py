"""A machine that is lost: all that a node runs is killed at once, its worker, its guardian and its jobs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from .fleet import Node


def lose(node: Node) -> int:
    """Kill everything that runs of a node but containers; returns how many processes that were.

    The worker and the guardian go first: nobody is left to see a job end, or to start another.
    """
    guardians = list(_guardians(node.name))
    killed = int(node.alive)
    node.signal(signal.SIGKILL)
    killed += sum(_kill(pid) for pid in guardians)
    node.kill()
    jobs = set(_jobs(node.work_dir, node.name))
    while found := [pid for pid, session in _sessions() if session in jobs]:
        killed += sum(_kill(pid) for pid in found)
    return killed


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _guardians(name: str) -> Iterator[int]:
    """Guardians of all incarnations of a node: the last argument of each is its configuration."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            *_, last, _ = path.read_bytes().split(b"\0")
            if last.startswith(b"{") and json.loads(last)["node"] == name:
                yield int(path.parent.name)


def _jobs(work_dir: Path, name: str) -> Iterator[int]:
    """The sessions of a node's jobs that run as processes, those that an earlier incarnation has begun among them."""
    for path in work_dir.rglob("processes/*/state.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            state = json.loads(path.read_text())
            if state["node"] == name:
                yield int(state["pid"])


def _sessions() -> Iterator[tuple[int, int]]:
    """Every process that has not ended, and its session."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything; state, parent, group and session come after it.
            state, _, _, session, *_ = path.read_text().rpartition(")")[2].split()
            if state not in "ZX":
                yield int(path.parent.name), int(session)
