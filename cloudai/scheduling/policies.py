"""Which scheduler decides a task: off, rolled out in part, or overruled for its many fallbacks (spec section
5).
"""

from __future__ import annotations

import importlib
import zlib
from collections import deque
from enum import StrEnum

from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.fallbacks import FALLBACK_LIMIT
from cloudai.scheduling.round_robin import RoundRobin
from cloudai.scheduling.rts import RTS
from cloudai.scheduling.scheduler import Scheduler

_SCHEDULER_ALLOWED = "'rts', 'round-robin', or 'module:Class' of a class with `name` and `rank`"


class GuardState(StrEnum):
    """How the scheduler has fared of late."""

    NORMAL = "normal"
    #: more fallbacks than the alert's share
    ALERT = "alert"
    #: more than the limit's share: Round-Robin decides
    TAKEN_OVER = "taken_over"


class FallbackGuard:
    """Watches the share of fallbacks among the latest decisions (spec section 5).

    Over `alert` of the last `window` decisions it reports an alert; over `limit` Round-Robin takes over. From
    then on every `probe_every`-th decision still asks the scheduler; when `probes` of those in a row went
    well, the cause is gone and the scheduler decides again. An operator's `reset` does the same at once.
    Nothing is judged before `least` decisions.
    """

    def __init__(
        self,
        *,
        alert: float = 0.10,
        limit: float = 0.30,
        window: int = 200,
        least: int = 20,
        probe_every: int = 10,
        probes: int = 20,
    ) -> None:
        self.state = GuardState.NORMAL
        self._alert = alert
        self._limit = limit
        self._least = least
        self._probe_every = probe_every
        self._probes = probes
        self._window: deque[bool] = deque(maxlen=window)
        self._fallbacks = 0
        self._asked = 0
        self._good_probes = 0

    @property
    def rate(self) -> float:
        """Share of fallbacks among the decisions of the window, 0..1."""
        return self._fallbacks / len(self._window) if self._window else 0.0

    def allows(self) -> bool:
        """Whether the scheduler is to be asked for this decision; then `record` must follow."""
        if self.state is not GuardState.TAKEN_OVER:
            return True
        self._asked += 1
        return self._asked % self._probe_every == 0

    def record(self, fell_back: bool) -> GuardState | None:
        """Note how a decision of the scheduler went; returns the new state when it changes."""
        if self.state is GuardState.TAKEN_OVER:
            self._good_probes = 0 if fell_back else self._good_probes + 1
            if self._good_probes < self._probes:
                return None
            self.reset()
            return self.state
        window = self._window
        if len(window) == window.maxlen:
            self._fallbacks -= window[0]
        window.append(fell_back)
        self._fallbacks += fell_back
        if len(window) < self._least:
            return None
        state = self._judge()
        if state is self.state:
            return None
        self.state = state
        return state

    def reset(self) -> None:
        """Forget the past; the scheduler decides again."""
        self.state = GuardState.NORMAL
        self._window.clear()
        self._fallbacks = self._asked = self._good_probes = 0

    def _judge(self) -> GuardState:
        if self.rate > self._limit:
            return GuardState.TAKEN_OVER
        return GuardState.ALERT if self.rate > self._alert else GuardState.NORMAL


class SchedulerPolicy:
    """Chooses between the configured scheduler and Round-Robin, decision by decision."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        enabled: bool = True,
        rollout_percent: float = 100.0,
        guard: FallbackGuard | None = None,
        round_robin: RoundRobin | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.round_robin = round_robin or RoundRobin()
        self.guard = guard or FallbackGuard()
        self._enabled = enabled
        self._rollout_percent = rollout_percent

    def choose(self, task_id: str) -> tuple[Scheduler, str]:
        """Name the scheduler for this task, and the fallback's reason: "" unless the guard overruled it.

        Switched off and not rolled out are no fallbacks.
        """
        if not self._enabled or not in_rollout(task_id, self._rollout_percent):
            return self.round_robin, ""
        if not self.guard.allows():
            return self.round_robin, FALLBACK_LIMIT
        return self.scheduler, ""


def in_rollout(task_id: str, percent: float) -> bool:
    """Whether this task is in the rolled-out share; every process agrees, and a growing share keeps its
    tasks.
    """
    return percent >= 100 or zlib.crc32(task_id.encode("utf-8", "surrogatepass")) % 10_000 < percent * 100


def scheduler_from_path(path: str) -> Scheduler:
    """The scheduler of that name: "rts", "round-robin", or "module:Class", made without arguments.

    Raises InvalidRequest for the field `scheduler` when it cannot be imported or made, or is no scheduler.
    """
    if path == RTS.name:
        return RTS()
    if path == RoundRobin.name:
        return RoundRobin()
    module, _, name = path.partition(":")
    if not module or not name:
        raise InvalidRequest("scheduler", path, _SCHEDULER_ALLOWED)
    try:
        made = getattr(importlib.import_module(module), name)()
    except Exception as error:  # whatever a user's module raises, the answer must name the setting
        raise InvalidRequest(
            "scheduler", path, f"{_SCHEDULER_ALLOWED} ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(made, Scheduler) or not isinstance(made.name, str):
        raise InvalidRequest("scheduler", path, _SCHEDULER_ALLOWED)
    return made
