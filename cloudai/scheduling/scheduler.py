"""What a scheduler is: it ranks the nodes that can take a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.requests import TaskRequest
from cloudai.scheduling.snapshot import BoolArray, FleetSnapshot


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision rests on, besides the task."""

    snapshot: FleetSnapshot
    #: None: there are none that can be used
    parameters: GAParams | None
    #: expected runtime of this task on a reference node, s
    tau: float
    #: deadline minus now, s; below 0: late already. Relative, since differences of epoch seconds lose digits.
    slack_s: float
    #: epoch s by the server's clock
    now: float
    #: a number drawn for a task that is to try a node for what can be learned (exploration.py); None: it is not
    explore: int | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Nodes in order, best first. The sequences run alongside `rows`."""

    #: rows of the snapshot
    rows: Sequence[int]
    #: lower is better; empty: the scheduler does not score
    scores: Sequence[float] = ()
    #: predicted runtime E, s; empty: the scheduler does not predict
    runtimes: Sequence[float] = ()
    #: the terms of the score by name, for `explain`
    terms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    #: the first row is tried for what can be learned there
    exploratory: bool = False


@runtime_checkable
class Scheduler(Protocol):
    """Ranks the nodes for one task.

    Name a class of your own in the settings as "module:Class"; it is made without arguments.
    """

    #: short name, shown in decisions and metrics
    name: str

    def rank(self, task: TaskRequest, context: Context, feasible: BoolArray, count: int) -> Ranking:
        """The best `count` feasible nodes at most, best first.

        `feasible` has shape (n,), True for at least one row, and is not to be changed. Ties are to be broken
        the same way every time. Raises CannotDecide with a reason when it cannot rank; then Round-Robin
        decides.
        """
        ...
