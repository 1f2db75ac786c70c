"""Comparing things on a machine that is never quiet: turn about, and the median of the rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median


class Rounds:
    """What each round gave: for every side the seconds that it took for the same work."""

    def __init__(self, times_s: dict[str, list[float]]) -> None:
        self._times_s = times_s

    def median_s(self, side: str) -> float:
        """The side's median time, seconds."""
        return median(self._times_s[side])

    def time_ratio(self, side: str, reference: str) -> float:
        """Time over the reference's in the same round, the median of all; below 1 is faster."""
        pairs = zip(self._times_s[side], self._times_s[reference], strict=True)
        return median(ours / theirs for ours, theirs in pairs)

    def rate_ratio(self, side: str, reference: str) -> float:
        """Rate over the reference's in the same round, the median of all; above 1 is faster."""
        return 1.0 / self.time_ratio(side, reference)


def take_turns(rounds: int, sides: Mapping[str, Callable[[], float]]) -> Rounds:
    """Run all sides in turn, `rounds` times, after one round that warms up; each returns seconds.

    The order is turned round after every round, so that a drift of the machine favours none.
    """
    times_s: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for name in order:
        sides[name]()
    for _ in range(rounds):
        for name in order:
            times_s[name].append(sides[name]())
        order.reverse()
    return Rounds(times_s)
