"""The placement pipeline: filter, choose a scheduler, rank, decide (spec section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import Protocol, Self

import numpy as np

from cloudai.scheduling.decision import Decision, Outcome
from cloudai.scheduling.errors import CannotDecide
from cloudai.scheduling.exploration import drawn
from cloudai.scheduling.fallbacks import INTERNAL_ERROR, NOT_FINITE
from cloudai.scheduling.feasibility import could_ever_hold, why_never
from cloudai.scheduling.filtering import Filter, Verdict
from cloudai.scheduling.parameter_vectors import ParameterVectors
from cloudai.scheduling.policies import FallbackGuard, GuardState, SchedulerPolicy, scheduler_from_path
from cloudai.scheduling.requests import TaskRequest
from cloudai.scheduling.rts import placement_features, predicted_runtime, rts_scores
from cloudai.scheduling.scheduler import Context, Ranking, Scheduler
from cloudai.scheduling.snapshot import BoolArray

#: Most candidates of one decision.
MOST_CANDIDATES = 5


class PlacementSettings(Protocol):
    """The settings that placement reads."""

    @property
    def scheduler(self) -> str:
        """Either "rts", "round-robin" or "module:Class"."""

    @property
    def rts_enabled(self) -> bool:
        """False: Round-Robin only."""

    @property
    def rollout_percent(self) -> float:
        """Share of the tasks that the scheduler decides, per cent."""

    @property
    def explore_percent(self) -> float:
        """Share of the tasks that may try another node, per cent."""

    @property
    def staleness_s(self) -> float:
        """Oldest telemetry of an eligible node, s."""

    @property
    def candidates(self) -> int:
        """Nodes of one decision, 1..5."""

    @property
    def fallback_alert(self) -> float:
        """Share of fallbacks over which an alert is due, 0..1."""

    @property
    def fallback_limit(self) -> float:
        """Share of fallbacks over which Round-Robin takes over, 0..1."""


@dataclass(slots=True)
class _Ranked:
    ranking: Ranking
    scheduler: str
    fallback_reason: str = ""
    fallback_detail: str = ""
    guard_event: GuardState | None = field(default=None)


class Placer:
    """Decides where tasks go. Not safe for threads, as the snapshot that it reads."""

    def __init__(
        self,
        policy: SchedulerPolicy,
        *,
        staleness_s: float = 10.0,
        count: int = MOST_CANDIDATES,
        explore_percent: float = 0.0,
    ) -> None:
        self.policy = policy
        self._explore_percent = explore_percent
        self._staleness_s = staleness_s
        self._count = min(count, MOST_CANDIDATES)
        self._filter = Filter()
        self._vectors = ParameterVectors()

    @classmethod
    def from_settings(cls, settings: PlacementSettings) -> Self:
        """A placer as configured; raises InvalidRequest when the scheduler cannot be made."""
        policy = SchedulerPolicy(
            scheduler_from_path(settings.scheduler),
            enabled=settings.rts_enabled,
            rollout_percent=settings.rollout_percent,
            guard=FallbackGuard(alert=settings.fallback_alert, limit=settings.fallback_limit),
        )
        return cls(
            policy,
            staleness_s=settings.staleness_s,
            count=settings.candidates,
            explore_percent=settings.explore_percent,
        )

    def decide(self, task_id: str, task: TaskRequest, context: Context) -> Decision:
        """Decide for one task over the context's snapshot. What a scheduler raises is a fallback, not an
        error.
        """
        verdict = self._filter.verdict(task_id, task, context.snapshot, context.now, self._staleness_s)
        if not verdict.count:
            return _no_node(task_id, task, context, verdict)
        ranked = self._rank(task_id, task, context, verdict.feasible)
        return _placed(task_id, task, context, verdict, ranked)

    def shortest(self, task: TaskRequest, context: Context) -> float | None:
        """Predicted runtime E on the best of the nodes that can take the task now, s; None: none can."""
        snapshot, parameters = context.snapshot, context.parameters
        verdict = self._filter.verdict("", task, snapshot, context.now, self._staleness_s)
        if not verdict.count:
            return None
        if parameters is None:
            return context.tau
        vectors = self._vectors.of(task.task_type, parameters, snapshot)
        scores = rts_scores(
            task, snapshot, parameters, tau=context.tau, slack_s=inf, vectors=vectors, feasible_only=True
        )
        # A node whose load is not known has no E; fmin leaves it out.
        best = float(np.fmin.reduce(scores.E[verdict.feasible]))
        return best if isfinite(best) else context.tau

    def _rank(self, task_id: str, task: TaskRequest, context: Context, feasible: BoolArray) -> _Ranked:
        policy = self.policy
        scheduler, overruled = policy.choose(task_id)
        if scheduler is policy.round_robin:
            return _Ranked(self._in_turn(task, context, feasible), scheduler.name, overruled)
        detail = ""
        draw = drawn(task_id, self._explore_percent)
        if draw is not None:
            context = replace(context, explore=draw)
        try:
            ranking = _checked(
                scheduler.rank(task, context, feasible, self._count), scheduler, feasible, self._count
            )
        except CannotDecide as error:
            reason = error.reason
        except Exception as error:  # a scheduler's bug must not stop submissions: it is counted and shown
            reason, detail = INTERNAL_ERROR, f"{type(error).__name__}: {error}"[:500]
        else:
            return _Ranked(ranking, scheduler.name, guard_event=policy.guard.record(False))
        event = policy.guard.record(True)
        return _Ranked(self._in_turn(task, context, feasible), policy.round_robin.name, reason, detail, event)

    def _in_turn(self, task: TaskRequest, context: Context, feasible: BoolArray) -> Ranking:
        return self.policy.round_robin.rank(task, context, feasible, self._count)


def _no_node(task_id: str, task: TaskRequest, context: Context, verdict: Verdict) -> Decision:
    snapshot = context.snapshot
    # Without any node nothing is known of what the fleet will hold.
    never = len(snapshot) > 0 and not could_ever_hold(task, snapshot).any()
    return Decision(
        task_id=task_id,
        outcome=Outcome.NEVER if never else Outcome.WAIT,
        decided_at=context.now,
        tau=context.tau,
        slack_s=context.slack_s,
        snapshot_version=snapshot.version,
        parameters_version=_parameters_version(context),
        refusals=verdict.refusals,
        why_never=why_never(task, snapshot) if never else "",
    )


def _placed(task_id: str, task: TaskRequest, context: Context, verdict: Verdict, ranked: _Ranked) -> Decision:
    snapshot = context.snapshot
    ranking = ranked.ranking
    names = [snapshot.names[row] for row in ranking.rows]
    features = [placement_features(task, snapshot, row) for row in ranking.rows]
    runtimes = ranking.runtimes
    if not runtimes:
        runtimes = [
            _prediction(task, context, name, of_node) for name, of_node in zip(names, features, strict=True)
        ]
    return Decision(
        task_id=task_id,
        outcome=Outcome.PLACE,
        decided_at=context.now,
        tau=context.tau,
        slack_s=context.slack_s,
        snapshot_version=snapshot.version,
        parameters_version=_parameters_version(context),
        refusals=verdict.refusals,
        scheduler=ranked.scheduler,
        fallback_reason=ranked.fallback_reason,
        fallback_detail=ranked.fallback_detail,
        guard_event=ranked.guard_event,
        candidates=names,
        features=features,
        runtimes=runtimes,
        scores=ranking.scores,
        terms=ranking.terms,
        exploratory=ranking.exploratory,
    )


def _prediction(
    task: TaskRequest, context: Context, node: str, features: tuple[float, float, float, float]
) -> float:
    """E where the scheduler gives none; tau where E cannot be computed."""
    if context.parameters is None:
        return context.tau
    predicted = predicted_runtime(features, context.parameters, task.task_type, node, context.tau)
    return predicted if isfinite(predicted) else context.tau


def _parameters_version(context: Context) -> int:
    return 0 if context.parameters is None else context.parameters.version


def _checked(ranking: Ranking, scheduler: Scheduler, feasible: BoolArray, count: int) -> Ranking:
    """The ranking, cut to `count` and before the first score that is not finite; ValueError if it is
    unusable.
    """
    rows = [int(row) for row in ranking.rows[:count]]
    usable = 0 < len(rows) == len(set(rows))
    for row in rows:
        usable = usable and 0 <= row < feasible.size and feasible.item(row)
    if not usable:
        raise ValueError(
            f"{scheduler.name} must rank feasible rows, each once, and at least one; it gave {rows}"
        )
    scores, runtimes = _plain(ranking.scores), _plain(ranking.runtimes)
    terms = {name: _plain(values) for name, values in ranking.terms.items()}
    given = len(ranking.rows)
    for values in (scores or ranking.rows, runtimes or ranking.rows, *terms.values()):
        if len(values) != given:
            raise ValueError(f"{scheduler.name} must give as many scores, runtimes and terms as rows")
    kept = len(rows)
    for place, score in enumerate(scores[:kept]):
        if not isfinite(score):
            kept = place
            break
    if kept == 0:
        raise CannotDecide(NOT_FINITE)
    return Ranking(
        rows=rows[:kept],
        scores=scores[:kept],
        runtimes=runtimes[:kept],
        terms={name: values[:kept] for name, values in terms.items()},
        exploratory=ranking.exploratory,
    )


def _plain(values: Sequence[float]) -> list[float]:
    """A user's scheduler may give numpy arrays; records and headers need lists of floats."""
    return values if type(values) is list else [float(value) for value in values]
