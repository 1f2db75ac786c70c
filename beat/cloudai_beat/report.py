"""What an epoch did and what it did not, as it is kept in GA_EPOCHS and, the latest ones, in Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from cloudai_beat.searching import SearchOutcome

#: What became of an epoch.
#:   published  new parameters are in force
#:   unchanged  nothing that it learned differs from what is in force
#:   kept       too little data, or none could be read: what is in force stays
#:   failed     a defect, or parameters in force that cannot be read; see `reason`
#:   skipped    another epoch runs or began too lately; it left no trace
Outcome = Literal["published", "unchanged", "kept", "failed", "skipped"]

#: Lines of changes, and points of a curve, that are kept.
LINES_KEPT = 40
POINTS_KEPT = 50


@dataclass(frozen=True)
class EpochReport:
    """One epoch. Times are epoch seconds of the Redis server."""

    epoch_id: str
    at: float
    outcome: Outcome
    #: One sentence for the operator.
    reason: str
    #: Who asked for it: beat, command, demo.
    trigger: str = "beat"
    took_s: float = 0.0
    #: Version of the parameters that it found in force, and that of those it published.
    in_force: int = 0
    version: int | None = None
    #: How far back it read, seconds.
    window_s: float = 0.0
    #: Attempts and nodes of the window; `capped`: there were more.
    records: int = 0
    capped: bool = False
    nodes: int = 0
    #: Type -> completions that it learned from.
    samples: Mapping[str, int] = field(default_factory=dict)
    #: theta1..theta4 before and after; what the regression was drawn towards, and what a search scaled them by.
    theta_before: tuple[float, ...] = ()
    theta: tuple[float, ...] = ()
    theta_prior: tuple[float, ...] = ()
    theta_factor: float = 1.0
    #: Completions that theta was fitted from; 0: it was kept.
    theta_records: int = 0
    #: What was kept or drawn towards something, and why.
    kept: tuple[str, ...] = ()
    #: Documents and records that could not be used: how many, by reason.
    skipped: Mapping[str, int] = field(default_factory=dict)
    #: What publishing changed; past LINES_KEPT lines they are counted in one.
    changes: tuple[str, ...] = ()
    #: What went wrong beside it: the history could not be read or written, the search broke.
    problems: tuple[str, ...] = ()
    #: Evolved genes whose effect is watched (watching.py); empty: none.
    watch: Mapping[str, Any] = field(default_factory=dict)
    #: What the search found; None: there was none.
    search: SearchOutcome | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; the search's parameters are left out, as they are published or dropped."""
        values: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            values[item.name] = list(value) if isinstance(value, tuple) else value
        values["samples"], values["skipped"] = dict(self.samples), dict(self.skipped)
        values["watch"] = dict(self.watch)
        if self.search is not None:
            values["search"] = {
                "used": self.search.parameters is not None,
                "reason": self.search.reason,
                "evaluations": self.search.evaluations,
                "gain": self.search.gain,
                "bound": self.search.bound,
                "best_fitness": list(self.search.best_fitness)[:POINTS_KEPT],
                "mean_fitness": list(self.search.mean_fitness)[:POINTS_KEPT],
            }
        return values
