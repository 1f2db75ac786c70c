"""How well runtimes are predicted on a trace: the rule in force beside a plain moving average for each type.

    python -m cloudai_beat.tau_accuracy TRACE...

Each job is predicted when it arrives, from the jobs that have ended by then: at its arrival plus its runtime.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import click
import numpy as np

from cloudai.bench.figures import Figure, Promise
from cloudai.bench.lab import Lab
from cloudai.cli.output import json_option, number, print_json, print_table
from cloudai.cli.telling import telling_errors
from cloudai.scheduling.learning import Learned, LearningRule, first, learn
from cloudai.scheduling.task_types import INITIAL_TAU, TASK_TYPES
from cloudai.settings import LearningSettings
from cloudai_beat.simulation.trace_files import read_trace
from cloudai_beat.simulation.workload import Trace

#: A rule that never sees an outlier: tau_new = 0.2 * runtime + 0.8 * tau, and nothing else.
PLAIN = LearningRule(outlier_after=2**62)

_SYNTHETIC = ("synthetic:burst", "synthetic:steady", "synthetic:mixed")
_SUFFIXES = (".csv", ".csv.gz", ".swf", ".swf.gz")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of the predictions of one trace."""

    jobs: int
    #: share predicted within a factor of 2
    within_2: float
    #: median of max(predicted / actual, actual / predicted)
    median_factor: float
    #: samples that were taken for outliers
    outliers: int


class Predictor:
    """Learns from ends and predicts arrivals, as finish and the router do."""

    def __init__(self, rule: LearningRule, *, family_after: int | None, limits: bool) -> None:
        self._rule = rule
        self._family_after = family_after
        self._limits = limits
        self._types = {kind: Learned(INITIAL_TAU[name]) for kind, name in enumerate(TASK_TYPES)}
        self._families: dict[tuple[int, int], Learned] = {}

    def predict(self, kind: int, family: int, limit_s: float) -> float:
        """Expected runtime, s. `family` -1: none; `limit_s` NaN: none."""
        tau = self._types[kind].tau
        if self._family_after is not None and family >= 0:
            known = self._families.get((kind, family))
            if known is not None and known.samples >= self._family_after:
                tau = known.tau
        return min(tau, limit_s) if self._limits and limit_s > 0 else tau

    def ended(self, kind: int, family: int, runtime_s: float) -> None:
        """Learn from a completion."""
        self._types[kind] = learn(self._types[kind], runtime_s, self._rule, self._rule.rate)
        if self._family_after is None or family < 0:
            return
        known = self._families.get((kind, family))
        self._families[kind, family] = (
            first(runtime_s) if known is None else learn(known, runtime_s, self._rule, self._rule.rate, from_first=True)
        )

    @property
    def outliers(self) -> int:
        """Samples that were rejected, of types and families."""
        return sum(known.rejected for known in (*self._types.values(), *self._families.values()))


def in_force() -> Predictor:
    """With the default settings: outliers told apart, families, the users' limits."""
    settings = LearningSettings()
    rule = LearningRule(settings.rate, {}, settings.adaptive, settings.outlier_sigma, settings.outlier_after)
    return Predictor(rule, family_after=settings.family_after, limits=True)


def plain() -> Predictor:
    """A moving average for each type."""
    return Predictor(PLAIN, family_after=None, limits=False)


def accuracy(trace: Trace, predictor: Predictor) -> Accuracy:
    """Predict every job of a trace in order of arrival."""
    running: list[tuple[float, int]] = []
    predicted = np.empty(len(trace))
    kinds, families = trace.kind.tolist(), trace.family.tolist()
    runtimes, limits = trace.runtime_s.tolist(), trace.limit_s.tolist()
    for job, arrival in enumerate(trace.arrival_s.tolist()):
        while running and running[0][0] <= arrival:
            _, done = heapq.heappop(running)
            predictor.ended(kinds[done], families[done], runtimes[done])
        predicted[job] = predictor.predict(kinds[job], families[job], limits[job])
        heapq.heappush(running, (arrival + runtimes[job], job))
    ratio = predicted / trace.runtime_s
    factor = np.maximum(ratio, 1.0 / ratio)
    return Accuracy(len(trace), float((factor <= 2.0).mean()), float(np.median(factor)), predictor.outliers)


@click.command()
@click.argument("traces", nargs=-1, required=True)
@json_option
@click.pass_context
def report(ctx: click.Context, traces: tuple[str, ...], as_json: bool) -> None:
    """How well runtimes are predicted on TRACES, in force and by a plain moving average: the share of jobs within a
    factor of 2, and the median factor between prediction and runtime.
    """
    with telling_errors(ctx, ["--json"] if as_json else []):
        read = _read(traces)
    rows = {name: (accuracy(trace, in_force()), accuracy(trace, plain())) for name, trace in read}
    if as_json:
        print_json({name: {"in_force": _json(ours), "plain": _json(theirs)} for name, (ours, theirs) in rows.items()})
        return
    print_table(
        ["*trace", ">*jobs", ">*within 2", ">*plain", ">*median factor", ">*plain", ">*outliers"],
        [
            [name, str(ours.jobs), f"{ours.within_2:.1%}", f"{theirs.within_2:.1%}", number(ours.median_factor, 3),
             number(theirs.median_factor, 3), str(ours.outliers)]
            for name, (ours, theirs) in rows.items()
        ],
    )  # fmt: skip


def within_factor_2(lab: Lab) -> Figure:
    """Share of the jobs that are predicted within a factor of 2, mean over the traces."""
    return _figure(lab, "within a factor of 2", lambda found: found.within_2)


def median_factor(lab: Lab) -> Figure:
    """Median factor between prediction and runtime, mean over the traces."""
    return _figure(lab, "median factor", lambda found: found.median_factor)


def _figure(lab: Lab, what: str, of: Callable[[Accuracy], float]) -> Figure:
    folder = lab.traces
    names: tuple[str, ...] = _SYNTHETIC
    if folder is not None:
        names = tuple(sorted(str(path) for path in folder.iterdir() if path.name.lower().endswith(_SUFFIXES)))
    ours, theirs, shown = [], [], []
    for name, trace in _read(names):
        ours.append(of(accuracy(trace, in_force())))
        theirs.append(of(accuracy(trace, plain())))
        shown.append(f"{name} {ours[-1]:.3g} ({theirs[-1]:.3g})")
    by_plain = f"in brackets by a plain moving average ({fmean(theirs):.3g})"
    return Figure(fmean(ours), f"{what}, {by_plain}: {', '.join(shown)}")


def _read(names: tuple[str, ...]) -> list[tuple[str, Trace]]:
    return [(Path(name).name, read_trace(name)) for name in names]


def _json(found: Accuracy) -> dict[str, float]:
    return {
        "jobs": found.jobs,
        "within_2": found.within_2,
        "median_factor": found.median_factor,
        "outliers": found.outliers,
    }


PROMISES: tuple[Promise, ...] = (
    Promise("tau-within-factor-2-share", 0.5, "higher", within_factor_2),
    Promise("tau-median-factor-error", 2.5, "lower", median_factor),
)

if __name__ == "__main__":
    report()
