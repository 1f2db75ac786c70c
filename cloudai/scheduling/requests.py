"""What a task asks for: values, checks at submission, and the form in a message header (spec section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from math import ceil, log2
from typing import Any

from cloudai.scheduling.deadlines import validate_multiplier
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.request_fields import (
    NODE_NAME_LIMIT,
    Constraints,
    Unplaceability,
    checked_constraints,
    checked_deadline,
    checked_epoch_seconds,
    checked_label,
    checked_limit,
    checked_unplaceable,
)
from cloudai.scheduling.resources import (
    LEAST_MEMORY_KIB,
    RESOURCE_NAMES,
    Resources,
    checked_amounts,
    checked_cpu,
    checked_gpu,
    checked_memory,
)
from cloudai.scheduling.task_types import TaskType, infer_task_type, validate_task_type
from cloudai.scheduling.units import KIB_PER_GIB, MILLI, parse_gib, parse_number, to_kib

__all__ = ["RequestDefaults", "Resources", "TaskRequest", "parse_request"]

#: What a request takes that says nothing, where nothing else is configured: one core, half a GiB.
DEFAULT_CPU_MILLI = MILLI
DEFAULT_MEMORY_KIB = KIB_PER_GIB // 2


@dataclass(frozen=True)
class RequestDefaults:
    """What a request takes where it says nothing; raises InvalidRequest on a value out of range."""

    #: limit and reservation, cores
    cpu: float = DEFAULT_CPU_MILLI / MILLI
    #: limit and reservation, GiB
    memory: float = DEFAULT_MEMORY_KIB / KIB_PER_GIB
    #: the same as integers: cpu_milli, memory_kib
    amounts: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "amounts", (checked_cpu(self.cpu), checked_memory(self.memory)))


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """What one task asks of the scheduler, checked."""

    #: reservation and limits
    resources: Resources
    task_type: TaskType
    #: the user named the type; else it was inferred
    explicit_type: bool = False
    #: the user's own deadline, epoch s; None: arrival + k * tau
    deadline: float | None = None
    #: the user's own k; None: the configured one
    sla_multiplier: float | None = None
    #: label of jobs that run alike and share a finer tau
    family: str | None = None
    user_id: str | None = None
    #: the only node that may run it
    target_worker_id: str | None = None
    #: labels that the node must have, sorted by name
    constraints: Constraints = ()
    #: what happens when no node could ever hold it
    unplaceable: Unplaceability = "wait"
    #: the user's own limit on the runtime, s: no prediction is above it
    limit_s: float | None = None
    _shape: str = field(default="", init=False, repr=False, compare=False)

    @property
    def shape(self) -> str:
        """A short text, equal for two tasks exactly when placement cannot tell them apart.

        It covers resources, type, family, constraints, target, and about how long the task may run; at most about 80
        characters of ASCII.
        """
        if not self._shape:
            amounts = self.resources
            sizes = (amounts.cpu_milli, amounts.memory_kib, amounts.gpu_milli, amounts.storage_kib)
            text = ":".join((self.task_type, *map(str, sizes)))
            limit = _about(self.limit_s)
            if self.family or self.constraints or self.target_worker_id or limit is not None:
                rest = repr((self.family, self.constraints, self.target_worker_id))
                if limit is not None:
                    rest += str(limit)
                text += ":" + blake2b(rest.encode(), digest_size=12).hexdigest()
            object.__setattr__(self, "_shape", text)
        return self._shape

    def to_header(self) -> dict[str, Any]:
        """Plain JSON for the message header; defaults are left out."""
        amounts = self.resources
        header: dict[str, Any] = {
            "cpu_milli": amounts.cpu_milli,
            "memory_kib": amounts.memory_kib,
            "task_type": str(self.task_type),
        }
        if amounts.gpu_milli:
            header["gpu_milli"] = amounts.gpu_milli
        if amounts.storage_kib:
            header["storage_kib"] = amounts.storage_kib
        if self.explicit_type:
            header["explicit_type"] = True
        if self.constraints:
            header["constraints"] = dict(self.constraints)
        if self.unplaceable != "wait":
            header["unplaceable"] = self.unplaceable
        for name in ("deadline", "sla_multiplier", "family", "user_id", "target_worker_id", "limit_s"):
            value = getattr(self, name)
            if value is not None:
                header[name] = value
        return header

    @classmethod
    def from_header(cls, header: object) -> TaskRequest:
        """Rebuild a request from `to_header`; anything malformed raises InvalidRequest and nothing else.

        Unknown keys are ignored, so that a node of the version before reads the header of the next. What is
        missing (a producer without CloudAI wrote the header) takes the shipped defaults, and a missing type
        is inferred.
        """
        if not isinstance(header, dict):
            raise InvalidRequest("request", header, "an object as made by to_header")
        explicit = header.get("explicit_type", False)
        if not isinstance(explicit, bool):
            raise InvalidRequest("explicit_type", explicit, "true or false")
        deadline = header.get("deadline")
        if deadline is not None:
            deadline = checked_epoch_seconds(deadline)
        resources = _resources_from_header(header)
        return cls(
            resources=resources,
            task_type=_type_from_header(header, resources),
            explicit_type=explicit,
            deadline=deadline,
            sla_multiplier=_optional_multiplier(header.get("sla_multiplier")),
            family=checked_label(header.get("family"), "family"),
            user_id=checked_label(header.get("user_id"), "user_id"),
            target_worker_id=checked_label(
                header.get("target_worker_id"), "target_worker_id", NODE_NAME_LIMIT
            ),
            constraints=checked_constraints(header.get("constraints")),
            unplaceable=checked_unplaceable(header.get("unplaceable")),
            limit_s=checked_limit(header.get("limit_s")),
        )


def parse_request(
    resources: Mapping[str, object] | Resources | None,
    *,
    task_type: str | None = None,
    deadline: datetime | timedelta | None = None,
    sla_multiplier: float | None = None,
    family: str | None = None,
    user_id: str | None = None,
    target_worker_id: str | None = None,
    constraints: Mapping[str, str] | None = None,
    unplaceable: str | None = None,
    limit_s: float | None = None,
    now: float,
    defaults: RequestDefaults,
) -> TaskRequest:
    """Check a submission and return its request (spec section 1).

    `resources` has cpu (cores), memory (GiB or text), gpu (devices), storage (GiB or text). cpu and memory
    left out (or None) take the defaults; the type is inferred from what was asked only. In a `Resources`, 0
    means left out. `limit_s` is the longest that the task may run, s. `deadline` is an aware datetime, or a positive
    timedelta from `now` (epoch s). Whether a target node exists is not known here. Raises InvalidRequest naming field,
    value and what is allowed. A repeated call with equal arguments answers from a cache.
    """
    asked: tuple[tuple[object, object], ...]
    if resources is None:
        asked = ()
    elif isinstance(resources, Resources):
        asked = _asked_of(resources)
    elif isinstance(resources, Mapping):
        asked = tuple(resources.items())
    else:
        raise InvalidRequest("resources", resources, "a mapping with " + ", ".join(RESOURCE_NAMES))
    if constraints is not None and not isinstance(constraints, Mapping):
        raise InvalidRequest("constraints", constraints, "a mapping of label to value, both text")
    labels = None if constraints is None else tuple(constraints.items())
    # 1, 1.0 and True are equal and hash alike, so the types belong to the key.
    kinds = tuple([type(value) for _, value in asked])
    options = (
        asked,
        kinds,
        task_type,
        sla_multiplier,
        family,
        user_id,
        target_worker_id,
        labels,
        unplaceable,
        limit_s,
    )
    try:
        hash(options)
    except Exception:  # something that cannot be hashed is nothing that is allowed; let the checks name it
        request = _checked.__wrapped__(*options, defaults.amounts)
    else:
        request = _checked(*options, defaults.amounts)
    if deadline is None:
        return request
    with_deadline = replace(request, deadline=checked_deadline(deadline, now))
    object.__setattr__(with_deadline, "_shape", request.shape)
    return with_deadline


@lru_cache(maxsize=4096, typed=True)
def _checked(
    asked: tuple[tuple[object, object], ...],
    kinds: tuple[type, ...],
    task_type: object,
    sla_multiplier: object,
    family: object,
    user_id: object,
    target_worker_id: object,
    constraints: tuple[tuple[object, object], ...] | None,
    unplaceable: object,
    limit_s: object,
    default_amounts: tuple[int, int],
) -> TaskRequest:
    given: dict[object, object] = dict(asked)
    for name in given:
        if name not in RESOURCE_NAMES:
            raise InvalidRequest("resources", name, "the keys " + ", ".join(RESOURCE_NAMES))
    cpu, memory, gpu, storage = (given.get(name) for name in RESOURCE_NAMES)
    default_cpu, default_memory = default_amounts
    amounts = Resources(
        cpu_milli=default_cpu if cpu is None else checked_cpu(cpu),
        memory_kib=default_memory if memory is None else checked_memory(memory),
        gpu_milli=0 if gpu is None else checked_gpu(gpu),
        storage_kib=0 if storage is None else to_kib(parse_gib(storage, "storage")),
    )
    if task_type is not None:
        kind = validate_task_type(task_type)
    else:
        kind = infer_task_type(
            0.0 if cpu is None else parse_number(cpu, "cpu"),
            0.0 if memory is None else parse_gib(memory, "memory"),
            amounts.gpu,
        )
    return TaskRequest(
        resources=amounts,
        task_type=kind,
        explicit_type=task_type is not None,
        sla_multiplier=_optional_multiplier(sla_multiplier),
        family=checked_label(family, "family"),
        user_id=checked_label(user_id, "user_id"),
        target_worker_id=checked_label(target_worker_id, "target_worker_id", NODE_NAME_LIMIT),
        constraints=checked_constraints(None if constraints is None else dict(constraints)),
        unplaceable=checked_unplaceable(unplaceable),
        limit_s=checked_limit(limit_s),
    )


def _about(limit_s: float | None) -> int | None:
    """Steps of a factor of 2: tasks whose limits are near each other wait in one line."""
    return None if limit_s is None else ceil(log2(limit_s))


def _resources_from_header(header: dict[Any, Any]) -> Resources:
    amounts = checked_amounts(
        header.get("cpu_milli", DEFAULT_CPU_MILLI),
        header.get("memory_kib", DEFAULT_MEMORY_KIB),
        header.get("gpu_milli", 0),
        header.get("storage_kib", 0),
    )
    if amounts.cpu_milli == 0:
        raise InvalidRequest("cpu_milli", 0, "a whole number above 0")
    if amounts.memory_kib < LEAST_MEMORY_KIB:
        raise InvalidRequest("memory_kib", amounts.memory_kib, f"at least {LEAST_MEMORY_KIB}")
    return amounts


def _type_from_header(header: dict[Any, Any], resources: Resources) -> TaskType:
    if "task_type" in header:
        return validate_task_type(header["task_type"])
    cpu = resources.cpu if "cpu_milli" in header else 0.0
    memory = resources.memory if "memory_kib" in header else 0.0
    return infer_task_type(cpu, memory, resources.gpu)


def _asked_of(resources: Resources) -> tuple[tuple[object, object], ...]:
    checked = checked_amounts(
        resources.cpu_milli, resources.memory_kib, resources.gpu_milli, resources.storage_kib
    )
    amounts = (checked.cpu, checked.memory, checked.gpu, checked.storage)
    return tuple((name, amount) for name, amount in zip(RESOURCE_NAMES, amounts, strict=True) if amount)


def _optional_multiplier(given: object) -> float | None:
    return None if given is None else validate_multiplier(given)
