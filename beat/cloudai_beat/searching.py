"""The seam between the epoch and a search for better parameters (spec section 7): what it gets, what it gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cloudai.history.records import TaskHistory, WorkerStats
from cloudai.scheduling.learning import LearningRule
from cloudai.scheduling.parameters import GAParams
from cloudai.settings import OptimiserSettings


@dataclass(frozen=True)
class SearchInputs:
    """What a search may look at. Nothing else: the same inputs give the same outcome."""

    #: Attempts of the window, newest first.
    history: Sequence[TaskHistory]
    #: The nodes over the same window.
    workers: Sequence[WorkerStats]
    #: What decides now.
    in_force: GAParams
    #: What would be published without a search: the genes in force beside the refreshed statistics.
    refreshed: GAParams
    settings: OptimiserSettings
    #: Of every draw.
    seed: int
    #: What earlier searches have scaled the fitted theta by, in all; it stays within [0.5, 2].
    theta_factor: float = 1.0
    #: How tau follows completions between two epochs.
    rule: LearningRule = field(default_factory=LearningRule)
    #: Completions of a family from which on its own tau is used.
    family_after: int = 3


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found."""

    #: Better than those in force by more than the noise; None: nothing was, `refreshed` is published.
    parameters: GAParams | None
    #: One sentence for the operator: why these, or why none.
    reason: str
    #: Of each generation.
    best_fitness: tuple[float, ...]
    mean_fitness: tuple[float, ...]
    #: Candidates that were replayed.
    evaluations: int
    #: Gain on the held-out slice over those in force, and its lower bound; None: not measured.
    gain: float | None
    bound: float | None


class Search(Protocol):
    """A search, such as the genetic one."""

    def __call__(self, inputs: SearchInputs) -> SearchOutcome:
        """Search. The epoch goes on without it should it raise."""
