"""The result of a task as Celery's backend has it, as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import states

from cloudai.containers.errors import ContainerError
from cloudai.job_output import container_record

if TYPE_CHECKING:
    from cloudai.app import CloudAI

#: Longest message of an error that is repeated, characters.
_MESSAGE_LIMIT = 500


def result_report(app: CloudAI, task_id: str) -> dict[str, Any] | None:
    """State and error of a task that has a result, and a container's record without the output; else None."""
    result = app.AsyncResult(task_id)
    state = result.state
    if state not in states.READY_STATES:
        return None
    value = result.result
    return {
        "state": state,
        "error": error_text(value),
        "advice": advice_text(value),
        "container": _without_output(container_record(value)),
    }


def error_text(value: Any) -> str:
    """What went wrong, in one line; "" for a value that is no error."""
    if isinstance(value, ContainerError):
        return f"{type(value).__name__}: {value.detail}"[:_MESSAGE_LIMIT]
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"[:_MESSAGE_LIMIT]
    return ""


def advice_text(value: Any) -> str:
    """What a container job's failure means and what to do about it; "" for anything else."""
    return value.advice if isinstance(value, ContainerError) else ""


def _without_output(record: dict[str, Any] | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {name: value for name, value in record.items() if not name.startswith(("stdout_", "stderr_"))}
