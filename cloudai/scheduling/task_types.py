"""The six task types, their starting runtimes, and how a missing type is inferred (spec sections 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from cloudai.scheduling.errors import InvalidRequest


class TaskType(StrEnum):
    """What a task mainly asks of a node."""

    CPU_LIGHT = "cpu-light"
    CPU_HEAVY = "cpu-heavy"
    MEMORY_HEAVY = "memory-heavy"
    GPU_INFERENCE = "gpu-inference"
    GPU_TRAINING = "gpu-training"
    MIXED = "mixed"


TASK_TYPES: tuple[TaskType, ...] = tuple(TaskType)

#: tau before anything was learned (s).
INITIAL_TAU: Mapping[TaskType, float] = MappingProxyType(
    {
        TaskType.CPU_LIGHT: 5.0,
        TaskType.CPU_HEAVY: 15.0,
        TaskType.MEMORY_HEAVY: 20.0,
        TaskType.GPU_INFERENCE: 10.0,
        TaskType.GPU_TRAINING: 60.0,
        TaskType.MIXED: 10.0,
    }
)

_BY_NAME: dict[str, TaskType] = {str(kind): kind for kind in TaskType}


def infer_task_type(cpu: float, memory: float, gpu: float) -> TaskType:
    """Infer the type from what was asked: cores, GiB, devices; 0 where nothing was asked (spec section 1)."""
    if gpu > 2 and cpu > 4:
        return TaskType.GPU_TRAINING
    if gpu > 0:
        return TaskType.GPU_INFERENCE
    if memory > 8:
        return TaskType.MEMORY_HEAVY
    if cpu > 4:
        return TaskType.CPU_HEAVY
    if cpu > 0:
        return TaskType.CPU_LIGHT
    return TaskType.MIXED


def validate_task_type(given: object, field: str = "task_type") -> TaskType:
    """Return the type of that name, or raise InvalidRequest naming the six (spec section 1)."""
    kind = _BY_NAME.get(given) if isinstance(given, str) else None
    if kind is None:
        raise InvalidRequest(field, given, "one of " + ", ".join(TASK_TYPES))
    return kind
