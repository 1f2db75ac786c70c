"""What a container job is: its specification, its result and its failures. Needs no container engine."""

from cloudai.containers.arguments import Volume
from cloudai.containers.errors import (
    CommandNotFound,
    ContainerError,
    ContainerFailed,
    EngineUnavailable,
    ImageNotFound,
    InputsNotFetched,
    OutOfMemory,
    OutputsNotKept,
    PullDenied,
    Refused,
    Stopped,
    Superseded,
    TimeLimitReached,
)
from cloudai.containers.result import ContainerResult
from cloudai.containers.spec import DEFAULT_MAX_ARGUMENT_BYTES, ContainerSpec, validate_container

__all__ = [
    "DEFAULT_MAX_ARGUMENT_BYTES",
    "CommandNotFound",
    "ContainerError",
    "ContainerFailed",
    "ContainerResult",
    "ContainerSpec",
    "EngineUnavailable",
    "ImageNotFound",
    "InputsNotFetched",
    "OutOfMemory",
    "OutputsNotKept",
    "PullDenied",
    "Refused",
    "Stopped",
    "Superseded",
    "TimeLimitReached",
    "Volume",
    "validate_container",
]
