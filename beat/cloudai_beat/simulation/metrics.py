"""What a replay was worth: the figures of one policy in one repetition, and their mean and spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloudai_beat.replay import Outcome
from cloudai_beat.simulation.scenario import Scenario
from cloudai_beat.simulation.workload import FloatColumn

#: name -> (title of its column, whether lower is better, meaning)
METRICS: Mapping[str, tuple[str, bool, str]] = {
    "miss_rate": ("missed %", True, "share of the jobs that ended after their deadline"),
    "avoidable_miss_rate": ("avoidable %", True, "share that missed, though an idle fastest node would have made it"),
    "latency_mean_s": ("mean latency", True, "arrival to end, mean, s"),
    "latency_p95_s": ("p95 latency", True, "arrival to end, 95th percentile, s"),
    "slowdown_gmean": ("slowdown", True, "arrival to end over the run time in the trace, geometric mean"),
    "utilisation": ("used %", False, "reserved over capacity until the last end, mean over nodes and resources"),
    "throughput_per_min": ("jobs/min", False, "jobs over the time from the first arrival to the last end"),
    "energy": ("energy/job", True, "per job: 1 a core-second, 0.1 a GiB-second, 5 a GPU-second"),
    "placements_per_s": ("replay/s", False, "placements that the replay decided in a second of this machine"),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """One policy in one repetition."""

    #: by the names of METRICS
    figures: Mapping[str, float]
    #: (n,) bool, by row of the scenario
    missed: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    #: (n,) bool
    avoidable: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    #: (n,) arrival to end, s
    latency_s: FloatColumn


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the repetitions."""

    mean: float
    #: standard deviation over the seeds; 0 of one
    sd: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Mean and sample deviation."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)


def judge(scenario: Scenario, outcome: Outcome, wall_s: float) -> Judged:
    """The figures of a replay that took `wall_s` seconds of this machine."""
    latency = outcome.finish - scenario.arrival_s
    missed = outcome.missed
    # An idle fastest node would have met it.
    avoidable = missed & (scenario.arrival_s + scenario.best_idle_s() <= scenario.deadline_s)
    jobs = len(scenario)
    figures = {
        "miss_rate": float(missed.mean()),
        "avoidable_miss_rate": float(avoidable.mean()),
        "latency_mean_s": float(latency.mean()),
        "latency_p95_s": float(np.quantile(latency, 0.95)),
        "slowdown_gmean": float(np.exp(np.log(latency / scenario.trace.runtime_s).mean())),
        "utilisation": outcome.utilisation,
        "throughput_per_min": 60.0 * jobs / outcome.span,
        "energy": float(outcome.energy.sum()) / jobs,
        "placements_per_s": outcome.decisions / max(wall_s, 1e-9),
    }
    return Judged(figures, missed, avoidable, latency)
