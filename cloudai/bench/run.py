"""Running the measurements that were asked for, one after the other."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable

from cloudai.bench.catalogue import promises
from cloudai.bench.figures import Promise, Row
from cloudai.bench.lab import Lab
from cloudai.scheduling.errors import InvalidRequest


def chosen(pattern: str | None) -> list[Promise]:
    """The promises whose name holds the pattern (`*` and `?` as in a shell). InvalidRequest if none does."""
    if pattern is None:
        return list(promises())
    found = [p for p in promises() if fnmatch.fnmatchcase(p.name, f"*{pattern.lower()}*")]
    if not found:
        raise InvalidRequest("only", pattern, f"part of a row's name: {', '.join(p.name for p in promises())}")
    return found


def run(promises: list[Promise], lab: Lab, tell: Callable[[str], None]) -> list[Row]:
    """Measure; one row for each. What a measurement raises is its row's `reference`, and the others go on."""
    rows = []
    for promise in promises:
        tell(promise.name)
        value: float | None = None
        try:
            figure = promise.measure(lab)
            value, reference = figure.value, figure.reference
        except Exception as error:
            # Whatever it is, it is told in the row and by the exit code.
            reference = f"not measured: {type(error).__name__}: {error}"
        rows.append(Row(promise.name, value, promise.goal, promise.better, reference))
    return rows
