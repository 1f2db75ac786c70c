"""The waiting set, compiled: a bitmap over the tasks sorted by shape and deadline, and one over them by age."""

from __future__ import annotations

import numpy as np

from .compiled import compiled
from .world import Words, World


@compiled
def park(i: int, S: World) -> None:
    """Task i waits."""
    s, at = S.tasks[i].shape, S.tasks[i].place
    S.bits[at >> 6] |= np.uint64(1) << np.uint64(at & 63)
    S.age_bits[i >> 6] |= np.uint64(1) << np.uint64(i & 63)
    if S.shapes[s].waiting == 0:
        S.shapes[s].lowest, S.shapes[s].highest = at, at
        S.shapes[s].listed_at = S.state[0].listed
        S.listed[S.state[0].listed] = s
        S.state[0].listed += 1
    else:
        S.shapes[s].lowest = min(S.shapes[s].lowest, at)
        S.shapes[s].highest = max(S.shapes[s].highest, at)
    S.shapes[s].waiting += 1
    S.state[0].waiting += 1
    S.state[0].oldest = min(S.state[0].oldest, i)
    S.state[0].next_aged = min(S.state[0].next_aged, S.tasks[i].arrival + S.state[0].aged_after)
    S.state[0].next_starving = min(S.state[0].next_starving, S.tasks[i].arrival + S.state[0].starving_after)


@compiled
def unpark(i: int, S: World) -> None:
    """Task i waits no longer."""
    s, at = S.tasks[i].shape, S.tasks[i].place
    S.bits[at >> 6] &= ~(np.uint64(1) << np.uint64(at & 63))
    S.age_bits[i >> 6] &= ~(np.uint64(1) << np.uint64(i & 63))
    S.shapes[s].waiting -= 1
    S.state[0].waiting -= 1
    if S.shapes[s].waiting == 0:
        last = S.listed[S.state[0].listed - 1]
        S.listed[S.shapes[s].listed_at] = last
        S.shapes[last].listed_at = S.shapes[s].listed_at
        S.shapes[s].listed_at = -1
        S.state[0].listed -= 1
    elif at == S.shapes[s].lowest:
        S.shapes[s].lowest = next_bit(S.bits, at + 1, S.shapes[s].highest)


@compiled
def next_bit(words: Words, first: int, last: int) -> int:
    """The first set bit from `first` to `last`, both included; -1: none."""
    if first > last:
        return -1
    at = first >> 6
    word = words[at] >> np.uint64(first & 63)
    if word:
        found = first + _lowest_bit(word)
        return found if found <= last else -1
    end = last >> 6
    at += 1
    while at <= end:
        if words[at]:
            found = (at << 6) + _lowest_bit(words[at])
            return found if found <= last else -1
        at += 1
    return -1


@compiled
def _lowest_bit(word: np.uint64) -> int:
    """Place of the lowest set bit of a word that is not 0."""
    place = 0
    if not word & np.uint64(0xFFFFFFFF):
        word >>= np.uint64(32)
        place += 32
    if not word & np.uint64(0xFFFF):
        word >>= np.uint64(16)
        place += 16
    if not word & np.uint64(0xFF):
        word >>= np.uint64(8)
        place += 8
    if not word & np.uint64(0xF):
        word >>= np.uint64(4)
        place += 4
    if not word & np.uint64(0x3):
        word >>= np.uint64(2)
        place += 2
    if not word & np.uint64(0x1):
        place += 1
    return place


@compiled
def oldest(S: World) -> int:
    """The task that has waited longest; -1: none."""
    if S.state[0].waiting == 0:
        return -1
    found = next_bit(S.age_bits, S.state[0].oldest, len(S.tasks) - 1)
    S.state[0].oldest = found
    return found


@compiled
def still_ahead(s: int, now: float, S: World) -> int:
    """Place of the first waiting task of shape s whose deadline has not passed; -1: none."""
    shape = S.shapes[s]
    at = shape.ahead
    while at <= shape.highest and S.places[at].deadline < now:
        at += 1
    shape.ahead = at
    return next_bit(S.bits, max(at, shape.lowest), shape.highest)
