"""Task types of old records, brought to the six of today (spec section 9)."""

from __future__ import annotations

from cloudai.scheduling.task_types import TASK_TYPES, TaskType, infer_task_type

_OLD_LABELS = {"cpu": TaskType.CPU_LIGHT, "gpu": TaskType.GPU_INFERENCE, "dl": TaskType.GPU_TRAINING}
_TODAY = frozenset(map(str, TASK_TYPES))


def normalised_type(label: object, *, cpu: float, memory: float, gpu: float) -> str:
    """The type of today: one of the six stays; missing or empty, it is inferred from the request (cores, GiB, devices);
    `cpu`, `gpu` and `dl` have their successors; anything else is mixed.
    """
    if label is None or label == "":
        return str(infer_task_type(cpu, memory, gpu))
    if not isinstance(label, str):
        return str(TaskType.MIXED)
    return label if label in _TODAY else str(_OLD_LABELS.get(label, TaskType.MIXED))
