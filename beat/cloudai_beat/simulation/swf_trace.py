"""Jobs from a log in the standard workload format (SWF) of the Parallel Workloads Archive.

A job is a line of 18 numbers; -1 is "not known"; lines that begin with `;` are comments.
"""

from __future__ import annotations

from math import isfinite, nan
from typing import TextIO

from cloudai.scheduling.units import KIB_PER_GIB, LARGEST
from cloudai_beat.simulation.csv_trace import MOST_SECONDS
from cloudai_beat.simulation.errors import TraceRefused
from cloudai_beat.simulation.workload import Job

#: The fields of a line, in order.
FIELDS = (
    "job number", "submit time", "wait time", "run time", "allocated processors", "average CPU time",
    "used memory", "requested processors", "requested time", "requested memory", "status", "user", "group",
    "executable", "queue", "partition", "preceding job", "think time",
)  # fmt: skip

_SUBMIT, _RUN, _ALLOCATED, _USED_KIB, _PROCESSORS, _LIMIT, _MEMORY_KIB = 1, 3, 4, 6, 7, 8, 9
_USER, _EXECUTABLE = 11, 13


def swf_jobs(source: str, text: TextIO) -> tuple[list[Job], int]:
    """The jobs, and how many were left out because they never ran (run time 0 or not known).

    Raises:
        TraceRefused: a line is no job, with its number.
    """
    jobs: list[Job] = []
    left_out = 0
    for number, line in enumerate(text, 1):
        content = line.strip()
        if not content or content.startswith(";"):
            continue
        values = _values(source, content, number)
        job = _job(source, values, number)
        if job is None:
            left_out += 1
        else:
            jobs.append(job)
    return jobs, left_out


def _values(source: str, content: str, line: int) -> list[float]:
    words = content.split()
    if len(words) != len(FIELDS):
        raise TraceRefused(source, f"{len(words)} fields; a job has {len(FIELDS)}", line)
    values = []
    for name, word in zip(FIELDS, words, strict=True):
        try:
            value = float(word)
        except ValueError:
            value = nan
        if not isfinite(value):
            raise TraceRefused(source, f"{name}: {word[:80]!r} was given; allowed: a finite number", line)
        values.append(value)
    return values


def _job(source: str, values: list[float], line: int) -> Job | None:
    def checked(field: int, most: float) -> float:
        value = values[field]
        # -1 is "not known"; any other negative number is a mistake.
        if value == -1:
            return 0.0
        if not 0 <= value <= most:
            raise TraceRefused(
                source, f"{FIELDS[field]}: {value:g} was given; allowed: 0 to {most:g}, or -1 for not known", line
            )
        return value

    if values[_SUBMIT] < 0:
        raise TraceRefused(source, f"submit time: {values[_SUBMIT]:g} was given; allowed: 0 or more", line)
    submit, runtime = checked(_SUBMIT, MOST_SECONDS), checked(_RUN, MOST_SECONDS)
    processors = checked(_PROCESSORS, LARGEST) or checked(_ALLOCATED, LARGEST)
    per_processor_kib = checked(_MEMORY_KIB, LARGEST * KIB_PER_GIB) or checked(_USED_KIB, LARGEST * KIB_PER_GIB)
    memory_gib = per_processor_kib * max(processors, 1.0) / KIB_PER_GIB
    if memory_gib > LARGEST:
        raise TraceRefused(source, f"memory: {memory_gib:g} GiB in all; allowed: at most {LARGEST:g}", line)
    limit = checked(_LIMIT, MOST_SECONDS)
    if runtime <= 0:
        return None
    user, executable = (f"{values[field]:.0f}" for field in (_USER, _EXECUTABLE))
    return Job(
        line=line,
        arrival_s=submit,
        runtime_s=runtime,
        cpu=processors,
        memory_gib=memory_gib,
        user="" if user == "-1" else user,
        family=_family(user, executable, processors),
        limit_s=limit if limit > 0 else nan,
    )


def _family(user: str, executable: str, processors: float) -> str:
    """What repeats: the same user's runs of one program; where no program is logged, those of one size."""
    if user == "-1":
        return ""
    return f"{user}/{executable}" if executable != "-1" else f"{user}/size {processors:g}"
