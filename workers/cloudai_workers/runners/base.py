"""The interface between a node and what runs its jobs."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from cloudai.containers.result import ContainerResult
from cloudai.containers.spec import ContainerSpec

_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Reservation:
    """What the ledger reserved for a job; the runner makes hard limits of it."""

    #: Thousandths of a core, at least 1.
    cpu_milli: int
    #: KiB of memory, at least 6 MiB.
    memory_kib: int
    #: Ids of the GPU devices that this job may see.
    gpu_devices: tuple[str, ...] = ()
    #: KiB of disk; counted when placing, not enforced by a runner.
    storage_kib: int = 0

    def __post_init__(self) -> None:
        if self.cpu_milli < 1:
            raise ValueError(f"cpu_milli: {self.cpu_milli}: 1 or more; 0 would mean unlimited to an engine")
        if self.memory_kib < 6 * 1024:
            raise ValueError(f"memory_kib: {self.memory_kib}: at least 6144, the engine's minimum")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that a node sets for each of its jobs."""

    #: Most processes and threads at once.
    pids: int = 4096
    #: Bytes of output that are kept while a job runs; beyond it the oldest output goes. The engine holds up
    #: to 1 MB of each stream back and stores short lines sixfold: with much less room, a chatty stream pushes
    #: the other's last words out.
    log_bytes: int = 32 * 1024 * 1024
    #: Bytes of each output stream that the result carries.
    tail_bytes: int = 8 * 1024


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt of a container job, as the node hands it to a runner."""

    #: The Celery task id.
    task_id: str
    #: Attempt number, from 1: with the task id, the name that nothing else on this node may have.
    attempt: int
    #: Name of this node.
    node: str
    #: What to run.
    spec: ContainerSpec
    #: What was reserved for it.
    reservation: Reservation
    #: The node's bounds.
    limits: Limits = field(default_factory=Limits)
    #: Seconds from submission to claim, for the record.
    waiting_s: float = 0.0
    #: The attempt whose job is still on this node, to attach to in place of starting one; 0: there is none.
    adopts: int = 0


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A job that a runner finds on this node, from before a restart."""

    #: The Celery task id.
    task_id: str
    #: Attempt number.
    attempt: int
    #: Name of the node that started it.
    node: str
    #: False when it has ended and only its result waits to be taken.
    running: bool
    #: Container id, or process id as text.
    container_id: str
    #: It has ended, but not by itself: its machine went down, or somebody killed it. There is no result to take.
    cut_off: bool = False


class StopReason(StrEnum):
    """Why a job is stopped; decides which error `Runner.run` raises."""

    STOPPED = "stopped"
    SUPERSEDED = "superseded"


class StopHandle:
    """Lets any thread stop a job, before, while or after it starts. The first reason given stays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: StopReason | None = None
        self._detail = ""
        self._listeners: list[Callable[[], None]] = []

    def stop(self, detail: str = "", reason: StopReason = StopReason.STOPPED) -> None:
        """Stop the job. Returns at once; `Runner.run` raises when the job is ended."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason, self._detail = reason, detail
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    @property
    def reason(self) -> StopReason | None:
        """Why the job is to stop, or None when it is not."""
        return self._reason

    @property
    def detail(self) -> str:
        """Who or what stopped it, for the message."""
        return self._detail

    def on_stop(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the job is stopped, in the stopping thread; at once when it already is."""
        with self._lock:
            if self._reason is None:
                self._listeners.append(listener)
                return
        listener()

    def forget(self, listener: Callable[[], None]) -> None:
        """Take a listener back."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)


def job_name(task_id: str, attempt: int) -> str:
    """The name of an attempt on its node, fit for containers, files and cgroups: the fence against running
    twice.

    A task id that is not plain (Celery lets callers choose any string) is replaced by its digest.
    """
    plain = task_id if _PLAIN_ID.fullmatch(task_id) else hashlib.sha256(task_id.encode()).hexdigest()[:40]
    return f"cloudai-{plain}-{attempt}"


def attempt_of(name: str) -> int:
    """The attempt that a name of `job_name` belongs to."""
    return int(name.rpartition("-")[2])


class Runner(Protocol):
    """Runs container jobs. All methods may be called from any thread."""

    #: "docker" or "process".
    name: str

    def check(self) -> str | None:
        """Why this runner cannot run jobs here and what to do about it, or None when it can."""

    def notices(self) -> list[str]:
        """What this runner does not enforce on this machine, to be said aloud when the node starts."""

    def home(self) -> str:
        """Where its jobs live on: a new incarnation of the node finds them only if this is the same."""

    def run(self, job: Job, control: StopHandle) -> ContainerResult:
        """Run one attempt and return its record; attach to it when it runs, or has just ended, on this node.

        Blocks until the job is over and nothing of it is left; but when a new incarnation of the node looks after the
        job meanwhile, it is left alone.

        Raises:
            ContainerError: one of the classes in `cloudai.containers.errors`.

        """

    def pause(self, task_id: str, attempt: int, ago_s: float = 0.0) -> bool:
        """Freeze an attempt; paused time is no run time and not part of the timeout. False: not running.

        `ago_s`: somebody else has frozen it so many seconds ago.
        """

    def resume(self, task_id: str, attempt: int) -> bool:
        """Let a paused attempt go on. False: it is not there."""

    def kill(self, task_id: str, attempt: int) -> bool:
        """End an attempt that no `run` of this process looks after, and remove it. False: it is not there."""

    def logs(self, task_id: str, follow: bool = False) -> Iterator[bytes]:
        """Output of the latest attempt, both streams as they came; with `follow`, until it ends.

        Raises:
            LookupError: this node has no output of that task.

        """

    def adopt(self) -> list[LiveJob]:
        """Jobs of this node that run, or have ended and not been taken, from before a restart."""

    def close(self) -> None:
        """Give up connections; call it when no job runs any more."""
