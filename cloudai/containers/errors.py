"""The ways in which a container job can end other than by success.

    CloudAIError
    └── ContainerError            one attempt did not succeed; `result` holds what was recorded of it
        ├── ContainerFailed       the command ended with a non-zero exit code
        ├── OutOfMemory           the kernel ended it at its memory limit
        ├── TimeLimitReached      it ran longer than its timeout
        ├── CommandNotFound       the command is not in the image
        ├── ImageNotFound         no such image
        ├── InputsNotFetched  what it was to be given could not be had
        ├── OutputsNotKept    it succeeded, but what it left could not be kept
        ├── PullDenied            the registry did not let this node have the image
        ├── Refused               this node's operator does not allow what was asked
        ├── EngineUnavailable     the container engine did not answer, or could not run it
        ├── Superseded            a later attempt took over; this one was ended
        └── Stopped               somebody stopped it

Celery's JSON results keep an exception's module, name and `args`, and rebuild it as `type(*args)`. So `args`
is
always `(detail, record)`, both plain JSON. The module must have been imported for Celery to find the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from cloudai.containers.result import ContainerResult
from cloudai.scheduling.errors import CloudAIError


class ContainerError(CloudAIError):
    """A container job did not succeed.

    Args:
        detail: what happened in this case, a sentence part without a final stop.
        record: the attempt's `ContainerResult`, or its JSON form, or None when nothing ran.

    """

    #: What it means and what to do about it.
    advice: ClassVar[str] = "See the record for the exit code and the end of the output."

    def __init__(self, detail: str = "", record: ContainerResult | Mapping[str, Any] | None = None) -> None:
        if isinstance(record, ContainerResult):
            record = record.to_json()
        elif record is not None:
            record = dict(record)
        super().__init__(detail, record)

    @property
    def detail(self) -> str:
        """What happened in this case."""
        return str(self.args[0])

    @property
    def result(self) -> ContainerResult | None:
        """The record of the attempt, or None when nothing ran."""
        record = self.args[1]
        return None if record is None else ContainerResult.from_json(record)

    def __str__(self) -> str:
        summary = (type(self).__doc__ or "").split("\n", 1)[0].rstrip(".")
        happened = f"{summary}: {self.detail}" if self.detail else summary
        result = self.result
        last_words = ""
        if result is not None:
            lines = (result.stderr_tail.strip() or result.stdout_tail.strip()).splitlines()
            where = f" Attempt {result.attempt} on node {result.node}."
            last_words = where + (f" Last output: {lines[-1][:200]}" if lines else "")
        return f"{happened}. {self.advice}{last_words}"


class ContainerFailed(ContainerError):
    """The command ended with a non-zero exit code."""

    advice = "The job itself reports failure: read the end of its output, or all of it with `cloudai logs`."


class OutOfMemory(ContainerError):
    """The job used more memory than it asked for and the kernel ended it."""

    advice = "Ask for more memory in `resources`, or make the job use less."


class TimeLimitReached(ContainerError):
    """The job ran longer than its timeout and was ended."""

    advice = "Raise `timeout`, or find out from the output why it took so long."


class CommandNotFound(ContainerError):
    """The command cannot be started."""

    advice = (
        "Check that the first word of `command` is executable in the image, and check `workdir` and `user`."
    )


class ImageNotFound(ContainerError):
    """The image does not exist where this node looks for it."""

    advice = "Check the image's name and tag; with pull='never' it must be on the node already."


class InputsNotFetched(ContainerError):
    """The job did not start, because an input could not be fetched."""

    advice = "Check that the URL is there and that this node can read it; the job can then be submitted again."


class OutputsNotKept(ContainerError):
    """The job succeeded, but an output could not be kept, so it counts as failed."""

    advice = "Check that this node can write to the URL, and what the job leaves; then submit it again."


class PullDenied(ContainerError):
    """The registry refused to give the image to this node."""

    advice = (
        "Log in to the registry on the node, with its own Docker configuration, or check the image's name."
    )


class Refused(ContainerError):
    """This node's operator does not allow what the job asks for."""

    advice = "Use what is allowed, or have the operator extend the allowlist in the node's configuration."


class EngineUnavailable(ContainerError):
    """The node could not run the job."""

    advice = "The job is not to blame: look at the node with `cloudai doctor` and at the engine's own log."


class Superseded(ContainerError):
    """Another attempt of this job has taken over and this one was ended."""

    advice = "Nothing to do: the newer attempt's result counts."


class Stopped(ContainerError):
    """The job was stopped before it ended by itself."""

    advice = "Submit it again if that was not wanted."
