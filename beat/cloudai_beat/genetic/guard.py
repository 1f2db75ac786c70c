"""The guard: evolved genes must beat those in force on work that the search has not seen (design: optimiser)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudai_beat.genetic.genes import Floats

#: Draws of the bootstrap, and the share of them that may lie below its bound.
DRAWS, TAIL = 2000, 0.05
#: Stretches of time that the held-out work is cut into: tasks near each other share their fate.
BLOCKS = 24
#: Fewer blocks than this say nothing.
LEAST_BLOCKS = 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much better the evolved genes are."""

    #: mean gain in fitness
    gain: float
    #: so much at least, but for one draw in twenty
    bound: float

    @property
    def better(self) -> bool:
        """Whether they may be published."""
        return self.bound > 0


def block_gains(gains: Floats, blocks: int = BLOCKS) -> Floats:
    """Mean gain of each stretch of tasks in order of arrival; `gains` (m,) is that of each task, evolved less in force.

    Fewer blocks where there are few tasks.
    """
    count = min(blocks, max(len(gains) // 4, 1))
    return np.array([block.mean() for block in np.array_split(gains, count)]) if len(gains) else np.zeros(0)


def judge(gains: Floats, seed: int) -> Verdict:
    """Paired bootstrap over the gains of blocks, shape (b,)."""
    table = np.asarray(gains, dtype=np.float64)
    gain = float(table.mean()) if table.size else 0.0
    if table.size < LEAST_BLOCKS or not np.isfinite(table).all():
        return Verdict(gain, float("-inf"))
    draws = np.random.default_rng(seed).integers(table.size, size=(DRAWS, table.size))
    return Verdict(gain, float(np.quantile(table[draws].mean(axis=1), TAIL)))
