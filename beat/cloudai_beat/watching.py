"""After evolved genes were published: the live share of deadlines kept is watched, and a fall takes them back.

A watch is kept in Redis from the publication on, so it outlives the process. Statistics that later epochs refresh are
published beside the genes that are watched; what counts is which tasks were decided with those genes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cloudai import names
from cloudai.history.records import TaskHistory
from cloudai.scheduling.errors import InvalidParameters
from cloudai.scheduling.parameters import GAParams

#: Tasks decided before the genes that they are compared with: the latest so many.
TASKS_BEFORE = 500
#: Tasks decided with the genes before anything is said, and from which on they have proved good.
LEAST_AFTER, ENOUGH_AFTER = 40, 400
#: A fall of the share is one if it is larger than this and than so many of its standard deviations.
LEAST_FALL, SIGMAS = 0.05, 3.0
#: No other genes are searched for while these are watched, so long at most, nor so long after a roll-back, s: what fell
#: would be found again.
REST_S = 1800.0

WATCHING, CONFIRMED, ROLLED_BACK = "watching", "confirmed", "rolled back"


@dataclass(frozen=True, slots=True)
class Watch:
    """Evolved genes under watch."""

    #: Version of the first publication that had them.
    version: int
    #: Server time of the publication, epoch s.
    at: float
    #: Share of deadlines kept before, and of how many tasks.
    before: float
    tasks_before: int
    #: The parameters that were in force before, as JSON, and what theta was scaled by then.
    parameters: str
    theta_factor: float
    state: str = WATCHING
    #: Share of deadlines kept with them so far, and of how many tasks.
    after: float | None = None
    tasks_after: int = 0
    #: Epoch s until which there is no search, unless they are confirmed before.
    rest_until: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def shown(self) -> dict[str, Any]:
        """What a report tells of it."""
        return {name: value for name, value in asdict(self).items() if name not in ("parameters", "theta_factor")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> Watch | None:
        """Read `to_json`'s form; None for anything else."""
        try:
            return None if not values else cls(**values)
        except TypeError:
            return None

    def parameters_before(self) -> GAParams | None:
        """The parameters that were in force before; None if they cannot be read."""
        try:
            return GAParams.from_json(self.parameters)
        except InvalidParameters:
            return None


def begun(
    version: int, at: float, history: Sequence[TaskHistory], before: GAParams, theta_factor: float
) -> Watch:
    """Watch evolved genes from their publication on."""
    kept, count = kept_share([r for r in history if r.parameters_version < version][:TASKS_BEFORE])
    return Watch(version, at, kept, count, before.to_json(), theta_factor, rest_until=at + REST_S)


def looked_at(watch: Watch, history: Sequence[TaskHistory], now: float) -> Watch:
    """The watch after another look at the live history (newest first): watching, confirmed or rolled back."""
    if watch.state != WATCHING:
        return watch
    decided = [r for r in history if r.parameters_version >= watch.version and r.arrival_time >= watch.at]
    after, count = kept_share(decided)
    watch = replace(watch, after=after, tasks_after=count)
    if count < LEAST_AFTER or watch.tasks_before < LEAST_AFTER:
        return watch
    if has_fallen(watch.before, watch.tasks_before, after, count):
        return replace(watch, state=ROLLED_BACK, rest_until=now + REST_S)
    return replace(watch, state=CONFIRMED) if count >= ENOUGH_AFTER else watch


def has_fallen(before: float, tasks_before: int, after: float, tasks_after: int) -> bool:
    """Whether a share is lower than before by more than chance."""
    together = (before * tasks_before + after * tasks_after) / (tasks_before + tasks_after)
    sigma = math.sqrt(together * (1.0 - together) * (1.0 / tasks_before + 1.0 / tasks_after))
    return before - after > max(LEAST_FALL, SIGMAS * sigma)


def kept_share(history: Sequence[TaskHistory]) -> tuple[float, int]:
    """Share of the ended tasks, cancelled ones aside, that kept their deadline, and how many there are."""
    ended = [record for record in history if record.final and record.outcome != names.CANCELLED]
    return (sum(record.sla_success for record in ended) / len(ended) if ended else 0.0), len(ended)


def told(watch: Watch) -> str:
    """The watch in words."""
    shares = f"{watch.before:.1%} of {watch.tasks_before} tasks before"
    if watch.after is not None:
        shares += f", {watch.after:.1%} of {watch.tasks_after} since"
    return f"deadlines kept since version {watch.version}: {shares}"
