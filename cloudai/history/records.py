"""What the history gives back: values of one attempt of a task, and of one node over a window (spec section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

#: The four features of a placement: cpu ratio, memory ratio, gpu ratio, load (spec section 5).
Features = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """One attempt of a task that has ended, or the end of a task that no node ran.

    Numbers are finite. Times are epoch seconds of the Redis server, but for `actual_start`, which is the node's clock.
    """

    task_id: str
    #: Fencing token of the ledger, from 1; 0: it was never placed.
    attempt: int
    #: Node that ran it; "" if none did, or if it was lost with its node.
    worker_id: str
    #: One of the six; old labels are normalised (spec section 9).
    task_type: str
    #: A final state of the ledger (succeeded, failed, cancelled, timed_out, expired, lost), or retried, requeued.
    outcome: str
    #: The task ended with this attempt.
    final: bool
    arrival_time: float
    deadline: float
    #: None: it never started.
    actual_start: float | None
    actual_finish: float
    #: The work itself, seconds, without waiting, image pull and clean-up; None: not measured.
    actual_runtime: float | None
    #: Succeeded, and by its deadline.
    sla_success: bool
    #: Core-seconds, GiB-seconds, GPU-seconds: as measured, else reservation times runtime; None: it never ran.
    cpu_used: float | None = None
    mem_used: float | None = None
    gpu_used: float | None = None
    #: What it asked for: cores, GiB, devices, GiB.
    cpu: float = 0.0
    memory: float = 0.0
    gpu: float = 0.0
    storage: float = 0.0
    #: Load L of the node when it was placed there.
    load_at_start: float | None = None
    #: Seconds with a node load above 1 while the node held it.
    overload_time: float | None = None
    #: Expected runtime at submission, seconds.
    tau: float | None = None
    #: E at the placement, seconds.
    predicted_runtime: float | None = None
    #: As they were at the placement.
    features: Features | None = None
    #: Version of the parameters that decided; 0: the defaults.
    parameters_version: int = 0
    #: Label of jobs that run alike; "" if none.
    family: str = ""


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One node over a window, summed over its attempts and its recorded heartbeats."""

    worker_id: str
    #: Attempts that ran there and ended in the window.
    tasks_run: int
    #: Tasks that ended there without success by their deadline; what was cancelled does not count.
    sla_violations: int
    #: Seconds of work of its attempts.
    total_runtime: float
    #: Core-seconds, GiB-seconds, GPU-seconds.
    cpu_used_total: float
    mem_used_total: float
    gpu_used_total: float
    #: Seconds of the window with load above 1.
    overload_time: float
    #: Seconds of the window that the node was in the fleet, as far as recorded; 0: no heartbeat was recorded.
    total_time: float
    #: Capacity: cores, GiB, devices; 0: not known.
    cpu: float = 0.0
    memory: float = 0.0
    gpu: float = 0.0
    #: Integral of max(0, load - 1) over the window, seconds.
    overload_excess: float = 0.0


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What a read of the history gave."""

    #: Newest first (tasks), by name (nodes).
    records: tuple[T, ...]
    #: Documents that could not be read: how many, by reason.
    skipped: Mapping[str, int] = field(default_factory=dict)
    #: There was more in the range than the limit: the records are a stratified sample of the newest.
    capped: bool = False


@dataclass(frozen=True, slots=True)
class TauSample:
    """Tau of a type at one moment."""

    task_type: str
    #: Epoch seconds.
    at: float
    #: Seconds.
    tau: float
    #: Runtime that it learned from, seconds; None: set by hand.
    runtime: float | None
    #: Spread of the runtimes, seconds squared; None: not known.
    variance: float | None = None


@dataclass(frozen=True, slots=True)
class PublishedParameters:
    """Parameters that were put in force."""

    version: int
    #: As GAParams.to_json gives it.
    json: str
    #: A file's name, "epoch", "cli".
    source: str
    #: Epoch seconds.
    at: float
