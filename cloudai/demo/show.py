"""How the demo is shown: a live line on a terminal, plain lines elsewhere, and the summary in tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cloudai.cli.output import duration, heading, line, number, percent, print_fields, print_table
from cloudai.demo.observer import Counts
from cloudai.demo.report import DemoReport
from cloudai.scheduling.task_types import TASK_TYPES

#: Plain lines come at most so often, seconds.
_PLAIN_EVERY_S = 3.0


class DemoShow:
    """Tells what the demo does while it runs. Used in a `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[where]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._title = ""
        self._jobs = 0
        self._told_at = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """A line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def wave(self, title: str, jobs: int) -> None:
        """A wave of so many jobs begins."""
        self._title, self._jobs, self._told_at = title, jobs, time.monotonic()
        self._bar = self._bars.add_task(title, total=jobs, where="")
        if not self._console.is_terminal:
            self.say(f"{title}: {jobs} jobs")

    def progress(self, ended: int, counts: Counts) -> None:
        """How far the wave is."""
        where = f"waiting {counts.waiting}" + "".join(
            f" · {node.partition('@')[0]} {tasks}" for node, tasks in sorted(counts.on_node.items())
        )
        if self._console.is_terminal and self._bar is not None:
            self._bars.update(self._bar, completed=ended, where=where)
        elif time.monotonic() - self._told_at >= _PLAIN_EVERY_S:
            self._told_at = time.monotonic()
            self.say(f"  {ended} of {self._jobs} done, {where}")


def show_summary(report: DemoReport) -> None:
    """The summary on standard output."""
    heading("Jobs by node and type")
    print_table(["type", *(f">*{node}" for node in report.placements), ">all"], _placement_rows(report))
    heading("Runtime by type, as learned (tau)")
    print_table(
        ["type", ">before", ">after"],
        [(str(kind), duration(report.tau_before[kind]), duration(report.tau_after[kind])) for kind in TASK_TYPES],
    )
    _show_learned(report)
    heading("Outcome")
    waiting = report.waiting
    waves = ", ".join(f"wave {i} {percent(rate)}" for i, rate in enumerate(report.sla_rate_by_wave, 1))
    reasons = "".join(f", {reason} {count}" for reason, count in sorted(report.fallbacks.items()))
    print_fields(
        {
            "jobs": f"{report.jobs}: {report.succeeded} succeeded, {report.failed} failed, "
            f"{report.lost} lost, {report.duplicated} ran twice",
            "done by deadline": f"{percent(report.sla_rate)} ({waves})",
            "waiting": f"median {duration(waiting.median_s)}, 95 % under {duration(waiting.p95_s)}, longest "
            f"{duration(waiting.max_s)}; {waiting.jobs_that_waited} jobs found no free node when they came",
            "fallback rate": f"{percent(report.fallback_rate)} of the decisions{reasons}",
            "runner": report.runner,
            "took": duration(report.duration_s),
        }
    )
    _show_explained(report.explained)
    if report.problems:
        heading("Problems")
        for problem in report.problems:
            line(problem)


def _show_learned(report: DemoReport) -> None:
    """What the epoch between the waves changed, and what became of it."""
    heading("Learned between the waves (epoch)")
    if not report.epoch:
        line("There was no epoch.")
        return
    line(f"{report.epoch['reason']}.")
    before, after = report.params_before, report.params_after
    print_table(
        ["parameter", ">before", ">after"],
        [
            (name, number(before[name]), number(after[name]))
            for name in ("theta1", "theta2", "theta3", "theta4", "alpha", "beta")
        ],
    )
    waves = [f">wave {i} ran here" for i in range(1, len(report.placements_by_wave) + 1)]
    print_table(
        ["node", ">times as long: declared", ">learned", *waves],
        [
            (node, number(speed.declared), number(speed.learned), *_shares(report, node))
            for node, speed in report.speeds.items()
        ],
    )


def _shares(report: DemoReport, node: str) -> list[str]:
    """Share of each wave's jobs that ran on a node."""
    shares = []
    for wave in report.placements_by_wave:
        jobs = sum(wave.values())
        shares.append(percent(wave.get(node, 0) / jobs) if jobs else "-")
    return shares


def _placement_rows(report: DemoReport) -> list[Sequence[str]]:
    nodes = report.placements.values()
    rows: list[Sequence[str]] = []
    for kind in TASK_TYPES:
        counts = [by_type.get(kind, 0) for by_type in nodes]
        rows.append((str(kind), *(str(count or "-") for count in counts), str(sum(counts))))
    totals = [sum(by_type.values()) for by_type in nodes]
    rows.append(("all", *map(str, totals), str(sum(totals))))
    return rows


def _show_explained(explained: dict[str, Any]) -> None:
    """One decision, in the words of `cloudai explain`: the candidates with the terms of their score."""
    if not explained:
        return
    decision = explained["decision"]
    heading("One decision explained")
    line(
        f"{explained['work']} ({explained['task_type']}), task {explained['task_id']}: waited "
        f"{duration(explained['waiting_s'])}, then went to {explained['node']}. Decided by "
        f"{decision['scheduler']}: tau {duration(decision['tau_s'])}, "
        f"{duration(decision['slack_s'])} to its deadline."
    )
    print_table(
        ["candidate", ">risk", ">lateness", ">load", ">affinity", ">penalty", ">predicted"],
        [
            (
                candidate["node"],
                number(candidate.get("score")),
                duration(candidate.get("lateness")),
                number(candidate.get("load")),
                number(candidate.get("affinity")),
                number(candidate.get("penalty")),
                duration(candidate.get("predicted_s")),
            )
            for candidate in decision["candidates"]
        ],
    )
    if decision["refusals"]:
        refusals = decision["refusals"].items()
        line("Refused: " + ", ".join(f"{count} for {reason}" for reason, count in refusals))
    line("The lowest risk wins. `cloudai explain TASK_ID` shows this for any task.")
