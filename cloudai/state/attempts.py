"""An attempt at a task: the claim that begins it, the report that ends it, and what became of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloudai.state.waiting import WaitingSet


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that a node has taken."""

    task_id: str
    message: bytes
    attempt: int
    #: Indices of the GPU devices reserved for it.
    devices: tuple[int, ...]
    #: Arrival to claim, seconds.
    waiting_s: float
    deadline: float
    cpu_milli: int
    memory_kib: int
    gpu_milli: int
    storage_kib: int
    #: The attempt whose job is still there, to attach to in place of starting one; 0: there is none.
    adopts: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """An attempt that has ended."""

    task_id: str
    attempt: int
    #: A final state, `retried` or `requeued`; see Ledger.finish.
    outcome: str
    #: The work itself, seconds; None: nothing to learn from.
    runtime_s: float | None
    reason: str
    #: Epoch seconds at which the work began; 0: at the claim.
    started: float
    #: What was measured, for the event.
    usage: Mapping[str, str | float | int]


@dataclass(frozen=True, slots=True)
class Finish:
    """What became of a report that an attempt has ended."""

    #: finished | next (a retry follows) | waiting (requeued) | unsettled | stale (an older attempt: nothing changed)
    status: str
    #: Tasks that wait for capacity now.
    waiting: int
    task_type: str
    #: Seconds; None where tau did not change.
    tau_old: float | None
    tau_new: float | None
    #: The runtime was no sample like the others: tau did not change, and it is counted.
    outlier: bool = False


@dataclass(frozen=True, slots=True)
class Finishes:
    """What became of several reports, and of the tasks that were to follow them."""

    #: One for each report.
    finishes: list[Finish]
    #: For each successor its node, "" (nothing fitted) or "gone"; empty: they were not tried.
    followed: list[str]
    #: The waiting set after that, where a look was asked for and something waits.
    waiting: WaitingSet | None


def read_claim(text: str, message: bytes) -> Claim:
    """A task that the claim script has handed out, by its line and its message."""
    task_id, attempt, devices, waiting, deadline, cpu, memory, gpu, storage, adopts = text.split("\t")
    return Claim(
        task_id=task_id,
        message=message,
        attempt=int(attempt),
        devices=tuple(int(d) for d in devices.split(",") if d),
        waiting_s=max(0.0, float(waiting)),
        deadline=float(deadline),
        cpu_milli=int(cpu),
        memory_kib=int(memory),
        gpu_milli=int(gpu),
        storage_kib=int(storage),
        adopts=int(adopts),
    )


def read_finish(text: str) -> Finish:
    """What the finish script says of one report."""
    status, waiting, task_type, old, new, verdict = text.split("\t")
    return Finish(
        status=status,
        waiting=int(waiting),
        task_type=task_type,
        tau_old=float(old) if old else None,
        tau_new=float(new) if new else None,
        outlier=verdict == "outlier",
    )
