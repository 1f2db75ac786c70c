"""Reading a trace by its name: a CSV, a log in the standard workload format, or a synthetic one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from cloudai_beat.simulation.csv_trace import csv_jobs
from cloudai_beat.simulation.errors import TraceRefused
from cloudai_beat.simulation.swf_trace import swf_jobs
from cloudai_beat.simulation.synthetic import SYNTHETIC, synthetic_trace
from cloudai_beat.simulation.workload import Trace, trace_of

#: What begins the name of a trace that is made up.
_SYNTHETIC_PREFIX = "synthetic:"

_ALLOWED = "FILE.csv, FILE.csv.gz, FILE.swf, FILE.swf.gz or " + ", ".join(
    _SYNTHETIC_PREFIX + name for name in SYNTHETIC
)


def read_trace(name: str) -> Trace:
    """The trace of that name.

    Raises:
        TraceRefused: no such file or form; a line that is no job; no jobs.
    """
    if name.startswith(_SYNTHETIC_PREFIX):
        kind = name.removeprefix(_SYNTHETIC_PREFIX)
        if kind not in SYNTHETIC:
            raise TraceRefused(name, f"no such synthetic trace; allowed: {', '.join(SYNTHETIC)}")
        return synthetic_trace(kind)
    path = Path(name)
    form = path.name.lower().removesuffix(".gz")
    if not form.endswith((".csv", ".swf")):
        raise TraceRefused(name, f"the form follows from the name; allowed: {_ALLOWED}")
    with _text(path) as text:
        if form.endswith(".swf"):
            jobs, left_out = swf_jobs(path.name, text)
        else:
            jobs, left_out = csv_jobs(path.name, text)
    return trace_of(path.name, jobs, left_out=left_out)


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """The file as text; whatever it lacks to be one is a TraceRefused."""
    try:
        # A file may begin with the mark that spreadsheets write.
        if path.name.lower().endswith(".gz"):
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as text:
                yield cast(TextIO, text)
        else:
            with path.open(encoding="utf-8-sig", newline="") as text:
                yield text
    except FileNotFoundError:
        raise TraceRefused(str(path), f"there is no such file; allowed: {_ALLOWED}") from None
    except UnicodeDecodeError as error:
        raise TraceRefused(path.name, f"not a text in UTF-8 ({error.reason})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise TraceRefused(str(path), f"cannot be read ({error})") from error
