"""A study as a picture: who misses how much, what of it could have been avoided, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cloudai_beat.simulation.report import about
from cloudai_beat.simulation.study import CLAIRVOYANT, RTS, TUNED, Study
from cloudai_beat.simulation.workload import FloatColumn

#: Points of the curve over time.
_BINS = 24

_OURS, _OTHER, _KNOWING, _LIGHT = "#1f6fb4", "#8a8f98", "#2f9e6e", 0.45
_LINES = ("#d1603d", "#b08900", "#7b5ea7")


def save_plot(study: Study, path: Path) -> None:
    """Write the picture as the file's suffix says (png, svg, pdf).

    Raises:
        OSError: the folder is not there or cannot be written.
    """
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    bars, curves = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _draw_bars(study, bars)
    _draw_curves(study, curves)
    figure.suptitle(about(study), fontsize=9)
    figure.savefig(path, dpi=130)


def _draw_bars(study: Study, axes: Axes) -> None:
    order = sorted(study.policies, key=lambda policy: study.spread(policy, "miss_rate").mean, reverse=True)
    places = np.arange(len(order))
    missed = [study.spread(policy, "miss_rate") for policy in order]
    avoidable = [study.spread(policy, "avoidable_miss_rate").mean * 100 for policy in order]
    colours = [_colour(policy) for policy in order]
    unavoidable = [spread.mean * 100 - part for spread, part in zip(missed, avoidable, strict=True)]
    axes.barh(places, avoidable, color=colours)
    axes.barh(places, unavoidable, left=avoidable, color=colours, alpha=_LIGHT)
    axes.errorbar(
        [spread.mean * 100 for spread in missed], places, xerr=[spread.sd * 100 for spread in missed],
        fmt="none", ecolor="#333333", elinewidth=1, capsize=2,
    )  # fmt: skip
    right = max((spread.mean + spread.sd) * 100 for spread in missed) or 1.0
    for place, spread in zip(places, missed, strict=True):
        end = (spread.mean + spread.sd) * 100 + right * 0.015
        axes.text(end, float(place), f"{spread.mean * 100:.1f}", va="center", fontsize=9)
    axes.set_xlim(0, right * 1.12)
    axes.set_yticks(places, order)
    axes.set_xlabel("missed deadlines, % of jobs (pale: no node could have met them)")
    axes.set_title("Missed deadlines")
    _plain(axes)


def _draw_curves(study: Study, axes: Axes) -> None:
    """Misses along the trace: bins of equally many jobs, the mean over the seeds."""
    rivals = sorted(
        (policy for policy in study.policies if policy not in (RTS, TUNED, CLAIRVOYANT)),
        key=lambda policy: study.spread(policy, "miss_rate").mean,
    )
    shown = dict.fromkeys([*rivals[:2], *(name for name in ("round-robin",) if name in rivals)])
    lines = dict(zip(shown, _LINES, strict=False))
    for policy in (*shown, CLAIRVOYANT, RTS, TUNED):
        if policy not in study.policies:
            continue
        curve = _along(study, policy)
        axes.plot(
            (np.arange(len(curve)) + 0.5) / len(curve) * 100, curve * 100, label=policy,
            color=lines.get(policy, _colour(policy)), linewidth=2.2 if policy in (RTS, TUNED) else 1.3,
            linestyle={CLAIRVOYANT: ":", TUNED: "--"}.get(policy, "-"),
        )  # fmt: skip
    axes.set_xlabel("jobs in order of arrival, %")
    axes.set_ylabel("missed deadlines, %")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
    axes.set_title("Along the trace")
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="upper left")
    _plain(axes)


def _along(study: Study, policy: str) -> FloatColumn:
    curves = []
    for repetition in study.repetitions:
        missed = repetition.judged[policy].missed.astype(np.float64)
        parts = np.array_split(missed, min(_BINS, len(missed)))
        curves.append([part.mean() for part in parts])
    mean: FloatColumn = np.array(curves).mean(axis=0)
    return mean


def _colour(policy: str) -> str:
    return {RTS: _OURS, TUNED: _OURS, CLAIRVOYANT: _KNOWING}.get(policy, _OTHER)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
