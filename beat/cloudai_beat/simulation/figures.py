"""What the simulation promises, as rows of `cloudai bench`.

On the traces of a folder (`--traces`, CLOUDAI_TRACES), else on the synthetic ones, as `reference` then says:
16 nodes, speeds that differ by a factor of 4, offered load 0.3, 0.6 and 0.8. Rates are means over the traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from cloudai.bench.figures import Figure, Promise
from cloudai.bench.lab import Lab

if TYPE_CHECKING:
    from cloudai_beat.simulation.study import Study

_LOADS = (0.3, 0.6, 0.8)
#: Jobs in a row of each trace, and repetitions; the same for `--quick`.
_JOBS, _SEEDS = 10_000, 3
_QUICK_JOBS, _QUICK_SEEDS = 3_000, 2

_SUFFIXES = (".csv", ".csv.gz", ".swf", ".swf.gz")
_SYNTHETIC = ("synthetic:burst", "synthetic:steady", "synthetic:mixed")

_RIVALS = ("hybrid-edf", "mct")
#: A difference within so many standard errors of the seeds' mean is noise; and so is what is smaller than this.
_ERRORS, _LEAST = 2.0, 0.002


class _Run(NamedTuple):
    """Studies by trace and load."""

    studies: Mapping[tuple[str, float], Study]
    #: what was replayed, for `reference`
    said: str

    def rate(self, policy: str, load: float) -> float:
        """Mean miss rate over the traces."""
        return fmean(
            study.spread(policy, "miss_rate").mean for (_, of), study in self.studies.items() if of == load
        )


def of_round_robin(lab: Lab, load: float) -> Figure:
    """Deadlines that `rts` misses, as a share of those that Round-Robin misses."""
    run = _untuned(lab.traces, lab.quick)
    ours, theirs = run.rate("rts", load), run.rate("round-robin", load)
    knowing = run.rate("clairvoyant", load)
    said = f"misses: rts {ours:.1%}, round-robin {theirs:.1%}, clairvoyant {knowing:.1%}; {run.said}"
    return Figure(ours / max(theirs, 1e-9), said)


def of_rivals(lab: Lab) -> Figure:
    """The same of the better of `hybrid-edf` and `mct`, at the load where it looks worst for `rts`."""
    run = _untuned(lab.traces, lab.quick)
    best = {load: min(run.rate(name, load) for name in _RIVALS) for load in _LOADS}
    ratios = {load: run.rate("rts", load) / max(best[load], 1e-9) for load in _LOADS}
    shown = "; ".join(
        f"load {load:g}: rts {run.rate('rts', load):.1%}, "
        + ", ".join(f"{name} {run.rate(name, load):.1%}" for name in _RIVALS)
        for load in _LOADS
    )
    return Figure(max(ratios.values()), f"misses at {shown}; {run.said}")


def tuned_of_untuned(lab: Lab) -> Figure:
    """Deadlines that `rts-tuned` misses on the later part, as a share of those of the best untuned policy."""
    run = _with_tuned(lab.traces, lab.quick)
    policies = next(iter(run.studies.values())).policies
    means = {policy: fmean(run.rate(policy, load) for load in _LOADS) for policy in policies}
    untuned = {name: rate for name, rate in means.items() if name not in ("rts-tuned", "clairvoyant")}
    best = min(untuned, key=lambda name: untuned[name])
    shown = ", ".join(
        f"load {load:g}: {run.rate('rts-tuned', load):.1%} against {run.rate(best, load):.1%}" for load in _LOADS
    )
    return Figure(
        means["rts-tuned"] / max(untuned[best], 1e-9), f"misses on the later part, against {best}, {shown}; {run.said}"
    )


def tuned_worse(lab: Lab) -> Figure:
    """Traces on which `rts-tuned` misses more than `rts` by more than noise, over all loads and seeds."""
    run = _with_tuned(lab.traces, lab.quick)
    worse, shown = 0, []
    for trace in dict.fromkeys(trace for trace, _ in run.studies):
        differences = [
            after - before
            for (name, _), study in run.studies.items()
            if name == trace
            for before, after in zip(
                study.values("rts", "miss_rate"), study.values("rts-tuned", "miss_rate"), strict=True
            )
        ]
        mean = fmean(differences)
        error = stdev(differences) / sqrt(len(differences)) if len(differences) > 1 else 0.0
        worse += mean > max(_ERRORS * error, _LEAST)
        shown.append(f"{trace} {mean:+.1%}")
    return Figure(float(worse), f"misses of rts-tuned less those of rts: {', '.join(shown)}; {run.said}")


def _traces(folder: Path | None) -> list[str]:
    if folder is None:
        return list(_SYNTHETIC)
    found = sorted(str(path) for path in folder.iterdir() if path.name.lower().endswith(_SUFFIXES))
    if not found:
        raise ValueError(f"{folder} holds no trace: no file that ends with {', '.join(_SUFFIXES)}")
    return found


@lru_cache(maxsize=2)
def _untuned(folder: Path | None, quick: bool) -> _Run:
    return _run(folder, quick, tuned=False)


@lru_cache(maxsize=2)
def _with_tuned(folder: Path | None, quick: bool) -> _Run:
    return _run(folder, quick, tuned=True)


def _run(folder: Path | None, quick: bool, *, tuned: bool) -> _Run:
    # What replays needs the extra `beat`; a row that lacks it says so.
    from cloudai_beat.simulation.scenario import Setting
    from cloudai_beat.simulation.study import ALL_POLICIES, DEFAULT_POLICIES, study
    from cloudai_beat.simulation.trace_files import read_trace

    jobs, seeds = (_QUICK_JOBS, _QUICK_SEEDS) if quick else (_JOBS, _SEEDS)
    studies = {}
    for name in _traces(folder):
        trace = read_trace(name)
        for load in _LOADS:
            setting = Setting(load=load, jobs=2 * jobs if tuned else jobs)
            policies = ALL_POLICIES if tuned else DEFAULT_POLICIES
            studies[Path(name).name, load] = study(trace, setting, policies, seeds=seeds)
    number = len(studies) // len(_LOADS)
    source = f"{number} traces" if folder is not None else f"{number} synthetic traces (no folder of traces was given)"
    return _Run(studies, f"mean over {source}, {jobs} jobs of each, {seeds} seeds")


PROMISES: tuple[Promise, ...] = (
    *(
        Promise(
            f"simulate-load-{load * 100:.0f}-of-round-robin-share",
            goal,
            "lower",
            partial(of_round_robin, load=load),
        )
        for load, goal in zip(_LOADS, (0.2, 0.35, 0.5), strict=True)
    ),
    Promise("simulate-of-hybrid-edf-and-mct-share", 1.0, "lower", of_rivals),
    Promise("simulate-tuned-of-best-untuned-share", 0.9, "lower", tuned_of_untuned),
    Promise("simulate-tuned-worse-traces", 0, "lower", tuned_worse),
)
