"""One epoch of the optimiser: read the window, learn, search, publish, and say what was done (spec section 7)."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import uuid4

from cloudai.deployment import Deployment
from cloudai.history.errors import HistoryError
from cloudai.history.records import Reading, TaskHistory, WorkerStats
from cloudai.scheduling.errors import InvalidParameters
from cloudai.scheduling.parameters import GENES, GAParams, differences
from cloudai_beat.report import LINES_KEPT, EpochReport, Outcome
from cloudai_beat.searching import Search, SearchInputs, SearchOutcome
from cloudai_beat.statistics import Refreshed, refresh
from cloudai_beat.watching import CONFIRMED, ROLLED_BACK, WATCHING, Watch, begun, looked_at, told

logger = logging.getLogger(__name__)

#: Source of the parameters that an epoch publishes.
SOURCE = "epoch"
#: What a search may scale the fitted theta by, in all (spec section 7).
FACTOR_RANGE = (0.5, 2.0)
#: Of two control processes the later one skips an epoch that comes within this share of the interval.
_GAP_SHARE = 0.9


class History(Protocol):
    """What an epoch asks of the history: `cloudai.history.store.HistoryStore`."""

    def task_history(self, since: float, until: float, limit: int) -> Reading[TaskHistory]:
        """Attempts that ended in the range (epoch s)."""

    def worker_stats(self, since: float, until: float) -> Reading[WorkerStats]:
        """The nodes over the range."""

    def append_epoch(self, document: Mapping[str, Any]) -> str:
        """Keep an epoch's document."""


@dataclass(frozen=True)
class _Lineage:
    """What an earlier epoch knew of the theta that is in force now."""

    prior: tuple[float, ...]
    factor: float


def run_epoch(
    deployment: Deployment,
    history: History,
    *,
    search: Search | None = None,
    trigger: str = "beat",
    at_intervals: bool = False,
    may_publish: bool = True,
) -> EpochReport:
    """Run one epoch and keep its report; returns it. One at a time in a deployment, whoever asks.

    Whatever the history holds or lacks, it completes and says so in the report.

    Args:
        deployment: where it publishes.
        history: what it learns from; where that cannot be reached, the parameters in force stay.
        search: tries to better what was learned.
        trigger: who asked.
        at_intervals: skip it if another began within the interval, as with two beats.
        may_publish: False: only report what it would publish.

    Raises:
        redis.RedisError: Redis does not answer.

    """
    token = uuid4().hex
    settings = deployment.settings.optimiser
    gap_s = _GAP_SHARE * settings.epoch_interval_s if at_intervals else 0.0
    begin = deployment.epochs.begin(token, f"{socket.gethostname()}/{os.getpid()}", gap_s=gap_s)
    if not begin.begun:
        return EpochReport(token, begin.now, "skipped", f"skipped: {begin.reason}", trigger)
    started = time.monotonic()
    run = _Run(deployment, history, search, token, begin.now, may_publish)
    try:
        report = run.report()
    except InvalidParameters as error:
        report = run.told(
            "failed", f"the parameters in force cannot be read; load good ones with `cloudai params load`: {error}"
        )
    except (HistoryError, ArithmeticError, ValueError, TypeError, LookupError, RuntimeError) as error:
        logger.exception("epoch-failed id=%s: the parameters in force stay", token)
        report = run.told("failed", f"a defect, the parameters in force stay: {type(error).__name__}: {error}")
    report = replace(report, trigger=trigger, took_s=round(time.monotonic() - started, 3))
    report = _kept(report, history)
    deployment.epochs.end(token, report.outcome, report.to_json())
    logger.info(
        "epoch-ended outcome=%s version=%s records=%d took=%.2fs %s",
        report.outcome, report.version or report.in_force, report.records, report.took_s, report.reason,
    )  # fmt: skip
    for problem in report.problems:
        logger.warning("epoch-problem id=%s %s", token, problem)
    return report


class _Run:
    """One epoch that has begun; what it found so far is in the report, however it ends."""

    def __init__(
        self,
        deployment: Deployment,
        history: History,
        search: Search | None,
        token: str,
        now: float,
        may_publish: bool,
    ) -> None:
        self._deployment = deployment
        self._history = history
        self._search = search
        self._settings = deployment.settings.optimiser
        self._may_publish = may_publish
        self._problems: list[str] = []
        self._report = EpochReport(token, now, "kept", "", window_s=self._settings.window_h * 3600)

    def report(self) -> EpochReport:
        """Do it."""
        published = self._deployment.parameters.read()
        in_force = GAParams() if published is None else published.parameters
        theta = _theta(in_force)
        self._report = replace(self._report, in_force=in_force.version, theta_before=theta, theta=theta)
        if not self._settings.enabled:
            return self.told("kept", "optimiser.enabled is false: the parameters in force stay")
        until = self._report.at + 1.0
        since = until - self._report.window_s
        try:
            tasks = self._history.task_history(since, until, self._settings.max_records)
            workers = self._history.worker_stats(since, until)
        except HistoryError as error:
            self._problems.append(str(error))
            return self.told("kept", "the history cannot be read: the parameters in force stay")
        lineage = self._lineage(in_force)
        watch = self._watched(tasks.records)
        fallen = watch is not None and watch.state == ROLLED_BACK and self._report.watch.get("state") == ROLLED_BACK
        genes = in_force
        if fallen and watch is not None:
            genes, lineage = _taken_back(in_force, watch, lineage)
        refreshed = refresh(
            tasks.records,
            workers.records,
            genes,
            theta_prior=lineage.prior,
            theta_factor=lineage.factor,
            present=self._deployment.fleet.names(),
        )
        self._take(tasks, workers, refreshed, lineage)
        if not refreshed.enough:
            return self.told("kept", f"kept {refreshed.kept[0]}")
        parameters = refreshed.parameters
        outcome = None
        if not fallen and not self._resting(watch):
            outcome = self._searched(tasks.records, workers.records, in_force, parameters)
        if outcome is not None and outcome.parameters is not None:
            parameters = outcome.parameters
            self._scaled(refreshed, parameters)
        report = self._published(in_force, parameters)
        if report.outcome != "published" or report.version is None:
            return report
        if fallen and watch is not None:
            logger.warning("parameters-rolled-back version=%d %s", report.version, told(watch))
            self._deployment.parameters.keep_watch(watch.to_json())
            return self.told("published", f"rolled back to the genes before version {watch.version}: {told(watch)}")
        if outcome is not None and outcome.parameters is not None:
            watch = begun(report.version, self._report.at, tasks.records, in_force, lineage.factor)
            self._deployment.parameters.keep_watch(watch.to_json())
            self._report = replace(self._report, watch=watch.shown())
            return self.told("published", report.reason)
        return report

    def _watched(self, history: Sequence[TaskHistory]) -> Watch | None:
        """Look at what the genes that were published last have brought about."""
        store = self._deployment.parameters
        before = Watch.from_json(store.watch())
        if before is None:
            return None
        watch = looked_at(before, history, self._report.at)
        if watch != before and watch.state != ROLLED_BACK:
            store.keep_watch(watch.to_json())
        if before.state == WATCHING:
            # Also where it ends in this epoch.
            self._report = replace(self._report, watch=watch.shown())
        return watch

    def _resting(self, watch: Watch | None) -> bool:
        """Whether there is to be no search: the last one's genes are still watched, or were rolled back of late."""
        if watch is None or self._report.at >= watch.rest_until:
            return False
        if watch.state == CONFIRMED:
            return False
        left = watch.rest_until - self._report.at
        what = "were rolled back" if watch.state == ROLLED_BACK else "are watched"
        why = f"no search for another {left:.0f} s at most: the genes of version {watch.version} {what}"
        self._report = replace(self._report, kept=(*self._report.kept, why))
        return True

    def told(self, outcome: Outcome, reason: str) -> EpochReport:
        """The report with how it ended."""
        return replace(self._report, outcome=outcome, reason=reason, problems=tuple(self._problems))

    def _take(
        self,
        tasks: Reading[TaskHistory],
        workers: Reading[WorkerStats],
        refreshed: Refreshed,
        lineage: _Lineage,
    ) -> None:
        skipped: Counter[str] = Counter(tasks.skipped)
        skipped.update(workers.skipped)
        skipped.update(refreshed.skipped)
        self._report = replace(
            self._report,
            records=len(tasks.records),
            capped=tasks.capped or workers.capped,
            nodes=len(workers.records),
            samples=refreshed.samples,
            theta=_theta(refreshed.parameters),
            theta_prior=lineage.prior,
            theta_factor=lineage.factor,
            theta_records=refreshed.theta.records,
            kept=refreshed.kept,
            skipped=dict(skipped),
        )

    def _lineage(self, in_force: GAParams) -> _Lineage:
        """What theta is drawn towards stays what it was before the first epoch, else the same records would count again
        in every epoch; parameters of somebody else's begin anew.
        """
        for report in self._deployment.epochs.latest():
            if report.get("version") == in_force.version and in_force.version:
                prior, factor = _numbers(report.get("theta_prior")), _numbers([report.get("theta_factor")])
                if prior is not None and len(prior) == 4 and factor is not None:
                    return _Lineage(prior, min(max(factor[0], FACTOR_RANGE[0]), FACTOR_RANGE[1]))
                break
        return _Lineage(_theta(in_force), 1.0)

    def _searched(
        self,
        tasks: Sequence[TaskHistory],
        workers: Sequence[WorkerStats],
        in_force: GAParams,
        refreshed: GAParams,
    ) -> SearchOutcome | None:
        if self._search is None:
            return None
        seed = zlib.crc32(self._report.epoch_id.encode())
        try:
            outcome = self._search(
                SearchInputs(
                    tasks,
                    workers,
                    in_force,
                    refreshed,
                    self._settings,
                    seed,
                    theta_factor=self._report.theta_factor,
                    rule=self._deployment.learning_rule,
                    family_after=self._deployment.settings.learning.family_after,
                )
            )
        except Exception as error:
            # What was learned is worth publishing without it.
            logger.exception("search-failed id=%s: the epoch goes on without it", self._report.epoch_id)
            self._problems.append(f"the search failed: {type(error).__name__}: {error}")
            return None
        self._report = replace(self._report, search=outcome)
        return outcome

    def _scaled(self, refreshed: Refreshed, parameters: GAParams) -> None:
        """Note by how much the search has scaled the fitted theta, all in all."""
        fitted = sum(_theta(refreshed.parameters)) / self._report.theta_factor
        factor = sum(_theta(parameters)) / fitted if fitted > 0 else 1.0
        factor = min(max(factor, FACTOR_RANGE[0]), FACTOR_RANGE[1])
        self._report = replace(self._report, theta=_theta(parameters), theta_factor=round(factor, 6))

    def _published(self, in_force: GAParams, parameters: GAParams) -> EpochReport:
        changes = tuple(differences(in_force, parameters, LINES_KEPT))
        self._report = replace(self._report, changes=changes)
        if not changes:
            return self.told("unchanged", "nothing that was learned differs from what is in force")
        if not self._may_publish:
            return self.told("kept", "not published, as asked")
        store = self._deployment.parameters
        version = store.publish(parameters, SOURCE, only_over=in_force.version, unasked=True)
        pinned = store.pinned() if version is None else None
        if pinned is not None:
            return self.told("kept", f"not published: pinned by {pinned}; `cloudai params unpin` ends that")
        if version is None:
            why = "somebody else published parameters meanwhile; the next epoch starts from those"
            return self.told("kept", f"not published: {why}")
        self._report = replace(self._report, version=version)
        for line in changes:
            logger.info("parameters-changed version=%d %s", version, line)
        return self.told("published", f"version {version} is in force: {_count(changes)}")


def _taken_back(in_force: GAParams, watch: Watch, lineage: _Lineage) -> tuple[GAParams, _Lineage]:
    """What is in force with the genes that were before those under watch; theta is fitted anew, scaled as it was."""
    before = watch.parameters_before()
    if before is None:
        return in_force, lineage
    genes = {name: getattr(before, name) for name in GENES}
    return replace(in_force, **genes), replace(lineage, factor=watch.theta_factor)


def _kept(report: EpochReport, history: History) -> EpochReport:
    """The report with a problem more where the history cannot keep it."""
    try:
        history.append_epoch({**report.to_json(), "_id": report.epoch_id})
    except HistoryError as error:
        text = f"the history cannot keep this report; Redis has it. {error}"
        if not any(problem in text for problem in report.problems):
            report = replace(report, problems=(*report.problems, text))
    return report


def _count(changes: Sequence[str]) -> str:
    if len(changes) >= LINES_KEPT:
        return "many values changed"
    return f"{len(changes)} {'value' if len(changes) == 1 else 'values'} changed"


def _theta(parameters: GAParams) -> tuple[float, float, float, float]:
    return parameters.theta1, parameters.theta2, parameters.theta3, parameters.theta4


def _numbers(values: Any) -> tuple[float, ...] | None:
    if not isinstance(values, list):
        return None
    if not all(isinstance(v, (int, float)) and math.isfinite(v) and v >= 0 for v in values):
        return None
    return tuple(float(v) for v in values)
