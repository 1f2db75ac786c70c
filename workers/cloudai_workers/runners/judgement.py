"""From what was recorded of a run to its verdict: a result, or which failure."""

from __future__ import annotations

from cloudai.containers.errors import (
    ContainerError,
    ContainerFailed,
    OutOfMemory,
    Stopped,
    Superseded,
    TimeLimitReached,
)
from cloudai.containers.result import ContainerResult
from cloudai_workers.runners.base import Job, StopHandle, StopReason
from cloudai_workers.runners.watch import Outcome


def judged(
    result: ContainerResult, outcome: Outcome, control: StopHandle, job: Job, *, out_of_memory: bool
) -> ContainerResult:
    """The result, or the failure that it is.

    Raises:
        ContainerError: TimeLimitReached, Stopped, Superseded, OutOfMemory or ContainerFailed, with the
            record.

    """
    if outcome is Outcome.STOPPED:
        raise stopped_error(control, result)
    if outcome is Outcome.TIME_LIMIT:
        raise TimeLimitReached(f"timeout is {job.spec.timeout:g} s", result)
    if result.exit_code == 0:
        return result
    # The flag is also set when only a child was ended for memory: the exit code decides first.
    if out_of_memory and result.exit_code == 137:
        raise OutOfMemory(f"the limit is {job.reservation.memory_kib / 1024:.0f} MiB", result)
    raise ContainerFailed(f"exit code {result.exit_code}", result)


def stopped_error(control: StopHandle, result: ContainerResult | None = None) -> ContainerError:
    """The error for a job that was stopped, with the record of what ran, if anything."""
    kind = Superseded if control.reason is StopReason.SUPERSEDED else Stopped
    return kind(control.detail, result)


def raise_if_stopped(control: StopHandle) -> None:
    """Raise what `stopped_error` gives, when the job was stopped."""
    if control.reason is not None:
        raise stopped_error(control)
