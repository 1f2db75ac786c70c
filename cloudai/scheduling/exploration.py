"""Exploratory placements: a small share of tasks goes to a node that the scheduler would not have chosen.

A pair of type and node that looks bad, or that nothing is known of, would else never be tried again, and nothing could
be learned of it. Only tasks that are expected to make their deadline there all the same are used for this.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from cloudai.scheduling.snapshot import BoolArray, FleetSnapshot, FloatArray

_PARTS = 1_000_000


def drawn(task_id: str, percent: float) -> int | None:
    """A number that is the same for a task in every process, if the task is one of that share; else None."""
    if percent <= 0:
        return None
    # A hash of its own: who explores has nothing to do with who is in a rollout.
    name = task_id.encode("utf-8", "surrogatepass")
    if zlib.crc32(b"explore:" + name) % _PARTS >= percent / 100 * _PARTS:
        return None
    return zlib.crc32(b"node:" + name)


def exploratory_row(
    draw: int,
    speed: Mapping[str, float],
    snapshot: FleetSnapshot,
    feasible: BoolArray,
    E: FloatArray,
    slack_s: float,
) -> int | None:
    """The node to try, or None; arrays of shape (n,).

    `speed` has the speed factors of the task's type by node: while none is known, placement by load visits the nodes
    anyway. `E` is the predicted runtime (s), with 1 for a speed that is not known: there the task must make its
    deadline even at the slowest known speed. Nodes that nothing is known of come first.
    """
    if not speed:
        return None
    known = np.fromiter((name in speed for name in snapshot.names), dtype=np.bool_, count=len(snapshot))
    slowest = max(1.0, *speed.values())
    in_time = feasible & (np.where(known, E, E * slowest) <= slack_s)
    for choices in (np.flatnonzero(in_time & ~known), np.flatnonzero(in_time)):
        if choices.size:
            return int(choices[draw % choices.size])
    return None
