"""What the jobs themselves say of when they ran: a file for each start, written by the job and by nobody else.

A file is named `<task id>.<anything>` and holds lines `start T`, `tick T` every 0.2 s and, where the job came so far,
`end T`. T is seconds since boot, the same clock for every process of the machine, inside containers too, and no change
of the wall clock moves it. A job that is frozen does not tick: a gap between two lines is time in which it did not run.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

#: Time between two ticks, seconds.
TICK_S = 0.2
#: A job that has not ticked for so long did not run meanwhile (frozen, or the machine gave it no time), seconds.
PAUSED_AFTER_S = 0.8

#: The same for a job that is a shell script: its witness folder, task id and number of ticks are $W, $K and $N.
SCRIPT = """\
read u </proc/sys/kernel/random/uuid
f="$W/$K.$u"
mark() { read t _ </proc/uptime; echo "$1 $t" >>"$f"; }
mark start
i=0
while [ $i -lt $N ]; do sleep 0.2; mark tick; i=$((i+1)); done
mark end
"""


def attend(folder: str, key: str, seconds: float) -> None:
    """Be a job of so many seconds that leaves a witness."""
    with open(os.path.join(folder, f"{key}.{uuid.uuid4()}"), "a", encoding="ascii", buffering=1) as file:

        def mark(what: str) -> None:
            file.write(f"{what} {time.clock_gettime(time.CLOCK_BOOTTIME):.3f}\n")

        mark("start")
        for _ in range(round(seconds / TICK_S)):
            time.sleep(TICK_S)
            mark("tick")
        mark("end")


@dataclass(frozen=True, slots=True)
class Run:
    """One start of one job."""

    key: str
    #: Seconds since boot.
    began: float
    ended: float | None
    #: When it was seen to run: stretches without a pause, seconds since boot.
    stretches: tuple[tuple[float, float], ...]


def read_runs(folder: Path) -> dict[str, list[Run]]:
    """Every start of every job, by key."""
    found: dict[str, list[Run]] = defaultdict(list)
    for path in folder.iterdir():
        run = read_run(path.name.rpartition(".")[0], path.read_text(encoding="ascii", errors="replace").splitlines())
        if run is not None:
            found[run.key].append(run)
    return {key: sorted(runs, key=lambda run: run.began) for key, runs in found.items()}


def read_run(key: str, lines: Iterable[str]) -> Run | None:
    """One witness; None where the job was killed before its first line was whole."""
    marks: list[float] = []
    ended = None
    for line in lines:
        what, _, when = line.partition(" ")
        try:
            marks.append(float(when))
        except ValueError:
            continue  # its last line, cut off
        if what == "end":
            ended = marks[-1]
    if not marks:
        return None
    stretches = [[marks[0], marks[0]]]
    for mark in marks[1:]:
        if mark - stretches[-1][1] > PAUSED_AFTER_S:
            stretches.append([mark, mark])
        stretches[-1][1] = mark
    return Run(key, marks[0], ended, tuple((a, b) for a, b in stretches))


def overlaps(runs: Iterable[Run]) -> list[tuple[Run, Run, float]]:
    """Pairs of runs of one job that ran at once, with the seconds that they did."""
    found = []
    for one, other in combinations(runs, 2):
        shared = [
            min(b, d) - max(a, c)
            for a, b in one.stretches
            for c, d in other.stretches
            if min(b, d) >= max(a, c)
        ]
        if shared:
            found.append((one, other, sum(shared)))
    return found
