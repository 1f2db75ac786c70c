"""The waiting set as one look shows it, and where its tasks should go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any


@dataclass(frozen=True, slots=True)
class WaitingTask:
    """One task of the waiting set."""

    task_id: str
    deadline: float
    #: Epoch seconds since when it waits.
    since: float
    priority: int
    #: Node kept for it, "" if none.
    hold: str
    #: Others of its shape, which were not read, have earlier deadlines that are still ahead.
    further: bool = False


@dataclass(frozen=True, slots=True)
class WaitingShape:
    """The most urgent waiting tasks of one shape of request."""

    shape: str
    request: str
    tasks: tuple[WaitingTask, ...]


@dataclass(frozen=True, slots=True)
class WaitingSet:
    """A bounded view of the waiting set."""

    now: float
    #: Tasks that wait in all.
    total: int
    shapes: tuple[WaitingShape, ...]
    changes: str
    #: Tasks that were ever parked in the set: another number later says that some have come since.
    parked: int

    def without(self, task_ids: Collection[str]) -> WaitingSet:
        """The rest of it."""
        shapes = (
            replace(shape, tasks=tuple(task for task in shape.tasks if task.task_id not in task_ids))
            for shape in self.shapes
        )
        return replace(self, total=self.total - len(task_ids), shapes=tuple(s for s in shapes if s.tasks))


@dataclass(frozen=True, slots=True)
class Proposal:
    """Where a waiting task should go: candidates with their features, best first."""

    task_id: str
    decision: str
    #: Why Round-Robin decided in place of the scheduler, "" if it did not.
    fallback: str
    #: E on the best candidate, seconds.
    predicted_s: float
    parameters_version: int
    candidates: tuple[tuple[str, str], ...]


def proposal_args(p: Proposal) -> tuple[Any, ...]:
    """A proposal, as the scripts that place waiting tasks read it."""
    return p.task_id, p.fallback, p.predicted_s, p.parameters_version, list(chain.from_iterable(p.candidates))


def read_look(reply: Sequence[Any]) -> WaitingSet:
    """A look at the waiting set, as the scripts answer it."""
    now, total, found, changes, parked = reply
    return WaitingSet(float(now), int(total), _read_shapes(found.decode()), changes.decode(), int(parked))


def _read_shapes(text: str) -> tuple[WaitingShape, ...]:
    shapes: list[tuple[str, str, list[WaitingTask]]] = []
    for line in text.split("\n") if text else ():
        kind, *fields = line.split("\t")
        if kind == "S":
            shapes.append((fields[0], fields[1], []))
        else:
            task_id, deadline, since, priority, hold = fields
            task = WaitingTask(task_id, float(deadline), float(since), int(priority), hold, kind == "F")
            shapes[-1][2].append(task)
    return tuple(WaitingShape(shape, request, tuple(tasks)) for shape, request, tasks in shapes)
