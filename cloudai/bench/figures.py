"""A row of the table: what was promised, what was measured, and against what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cloudai.bench.lab import Lab


@dataclass(frozen=True, slots=True)
class Figure:
    """What a measurement found."""

    #: In the unit that the row's name ends with.
    value: float
    #: What it was measured against, with that one's own value.
    reference: str


@dataclass(frozen=True, slots=True)
class Promise:
    """A row's name, which ends with its unit, its goal, and how it is measured."""

    name: str
    goal: float
    better: Literal["lower", "higher"]
    measure: Callable[[Lab], Figure]
    #: The hottest functions of what is measured, as text; None where there is no such profile.
    profile: Callable[[Lab], str] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A measured promise. `value` is None where it could not be measured; then `reference` says why."""

    name: str
    value: float | None
    goal: float
    better: Literal["lower", "higher"]
    reference: str

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        if self.value is None:
            return False
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal

    def to_json(self) -> dict[str, Any]:
        """As `cloudai bench --json` prints it."""
        return {
            "name": self.name,
            "value": None if self.value is None else float(f"{self.value:.4g}"),
            "goal": self.goal,
            "better": self.better,
            "met": self.met,
            "reference": self.reference,
        }
