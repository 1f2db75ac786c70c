"""Comparing two things on a machine that is never quiet: turn about, and the median of the rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Comparison:
    """What each round gave, in seconds for the same work."""

    reference_s: tuple[float, ...]
    candidate_s: tuple[float, ...]

    @property
    def time_ratio(self) -> float:
        """Candidate's time over the reference's, each against its neighbour; below 1 is faster. The median."""
        return median(ours / plain for plain, ours in zip(self.reference_s, self.candidate_s, strict=True))

    @property
    def rate_ratio(self) -> float:
        """Candidate's rate over the reference's; above 1 is faster."""
        return 1.0 / self.time_ratio

    @property
    def reference_median_s(self) -> float:
        """The reference's median time, seconds."""
        return median(self.reference_s)

    @property
    def candidate_median_s(self) -> float:
        """The candidate's median time, seconds."""
        return median(self.candidate_s)


def compare(rounds: int, reference: Callable[[], float], candidate: Callable[[], float]) -> Comparison:
    """Run both in turn, `rounds` times, after one round that warms up; each returns seconds.

    Who goes first changes with every round, so that a drift of the machine favours neither.
    """
    reference(), candidate()
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            times[side].append((reference, candidate)[side]())
    return Comparison(tuple(times[0]), tuple(times[1]))
