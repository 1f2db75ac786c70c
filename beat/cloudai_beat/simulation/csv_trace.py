"""Jobs from a CSV file with a header line."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from math import inf, isfinite, nan
from typing import TextIO

from cloudai.scheduling.task_types import TASK_TYPES
from cloudai.scheduling.units import LARGEST
from cloudai_beat.simulation.errors import TraceRefused
from cloudai_beat.simulation.workload import Job

#: Must be there.
REQUIRED = ("arrival_s", "runtime_s", "cpu")
#: May be left out, and may be empty; any other column is ignored.
OPTIONAL = ("memory_gib", "gpu", "storage_gib", "user", "family", "limit_s", "deadline_s", "task_type")

#: Longest times that are taken, s: about 3 000 years.
MOST_SECONDS = 1e11

_TYPES = frozenset(map(str, TASK_TYPES))


def csv_jobs(source: str, text: TextIO) -> tuple[list[Job], int]:
    """The jobs, and how many rows were left out because they never ran (run time 0 or not recorded).

    Raises:
        TraceRefused: a column is missing, or a value is not allowed, with the line.
    """
    reader = csv.reader(text, strict=True)
    jobs: list[Job] = []
    left_out = 0
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        columns = _columns(source, header)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise TraceRefused(
                    source, f"{len(row)} cells; the header line has {len(header)} columns", reader.line_num
                )
            job = _job(source, row, columns, reader.line_num)
            if job is None:
                left_out += 1
            else:
                jobs.append(job)
    except csv.Error as error:
        raise TraceRefused(source, f"not readable as CSV: {error}", reader.line_num) from error
    return jobs, left_out


def _columns(source: str, header: list[str]) -> Mapping[str, int]:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise TraceRefused(
            source,
            f"the header line lacks {', '.join(missing)}; needed: {', '.join(REQUIRED)}; "
            f"also read: {', '.join(OPTIONAL)}; the line has: {','.join(header)[:200] or 'nothing'}",
            1,
        )
    twice = [name for name in (*REQUIRED, *OPTIONAL) if header.count(name) > 1]
    if twice:
        raise TraceRefused(source, f"the header line has {', '.join(twice)} twice", 1)
    return {name: header.index(name) for name in (*REQUIRED, *OPTIONAL) if name in header}


def _job(source: str, row: list[str], columns: Mapping[str, int], line: int) -> Job | None:
    """The row's job; None if it never ran."""

    def text(name: str) -> str:
        return row[columns[name]].strip() if name in columns else ""

    def refused(name: str, allowed: str) -> TraceRefused:
        return TraceRefused(source, f"{name}: {text(name)[:80]!r} was given; allowed: {allowed}", line)

    def amount(name: str, most: float, empty: float | None, least: float = 0.0) -> float:
        given = text(name)
        if not given and empty is not None:
            return empty
        try:
            value = float(given)
        except ValueError:
            value = nan
        # NaN fails the comparison, so that neither it nor infinity gets in.
        if not (least <= value <= most):
            raise refused(name, f"a number from {least:g} to {most:g}" + ("" if empty is None else ", or nothing"))
        return value

    arrival = amount("arrival_s", MOST_SECONDS, None)
    runtime = amount("runtime_s", MOST_SECONDS, 0.0)
    limit, deadline = (amount(name, MOST_SECONDS, inf) for name in ("limit_s", "deadline_s"))
    task_type = text("task_type")
    if task_type and task_type not in _TYPES:
        raise refused("task_type", ", ".join(TASK_TYPES) + ", or nothing")
    job = Job(
        line=line,
        arrival_s=arrival,
        runtime_s=runtime,
        cpu=amount("cpu", LARGEST, 0.0),
        memory_gib=amount("memory_gib", LARGEST, 0.0),
        gpu=amount("gpu", LARGEST, 0.0),
        storage_gib=amount("storage_gib", LARGEST, 0.0),
        user=text("user"),
        family=text("family"),
        limit_s=limit if isfinite(limit) and limit > 0 else nan,
        deadline_s=deadline if isfinite(deadline) else nan,
        task_type=task_type,
    )
    return job if runtime > 0 else None


