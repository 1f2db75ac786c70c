"""Amounts of the four resources, and the checks of what a user asks of each (spec section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.units import (
    KIB_PER_GIB,
    LARGEST,
    MILLI,
    parse_gib,
    parse_number,
    to_kib,
    to_milli,
)

RESOURCE_NAMES = ("cpu", "memory", "gpu", "storage")

#: Container engines refuse less memory than this (KiB).
LEAST_MEMORY_KIB = 6 * 1024

_GPU_ALLOWED = "a whole number of devices, or a fraction below 1 of one device"


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each resource, in integers so that sums are exact in every process and in Redis."""

    #: cores, in thousandths
    cpu_milli: int = 0
    #: memory, in KiB
    memory_kib: int = 0
    #: GPU devices, in thousandths: below 1000 a share of one device, else a multiple of 1000
    gpu_milli: int = 0
    #: disk, in KiB
    storage_kib: int = 0

    @property
    def cpu(self) -> float:
        """Cores."""
        return self.cpu_milli / MILLI

    @property
    def memory(self) -> float:
        """GiB."""
        return self.memory_kib / KIB_PER_GIB

    @property
    def gpu(self) -> float:
        """Devices."""
        return self.gpu_milli / MILLI

    @property
    def storage(self) -> float:
        """GiB."""
        return self.storage_kib / KIB_PER_GIB

    def describe(self) -> str:
        """One line for people: only what is above 0."""
        parts = [("cpu", self.cpu, ""), ("memory", self.memory, " GiB"), ("gpu", self.gpu, "")]
        parts.append(("storage", self.storage, " GiB"))
        return ", ".join(f"{name} {amount:g}{unit}" for name, amount, unit in parts if amount) or "nothing"


def checked_cpu(given: object) -> int:
    """Thousandths of a core, above 0; else InvalidRequest."""
    cpu = parse_number(given, "cpu")
    if cpu == 0:
        raise InvalidRequest(
            "cpu", given, f"more than 0 cores, at most {LARGEST:g}; leave it out for the default"
        )
    return to_milli(cpu)


def checked_memory(given: object) -> int:
    """KiB, at least 6 MiB; else InvalidRequest."""
    kib = to_kib(parse_gib(given, "memory"))
    if kib < LEAST_MEMORY_KIB:
        raise InvalidRequest("memory", given, f"6 MiB to {LARGEST:g} GiB; leave it out for the default")
    return kib


def checked_gpu(given: object) -> int:
    """Thousandths of a device: whole devices or a share of one; else InvalidRequest."""
    gpu = parse_number(given, "gpu")
    if gpu > 1 and gpu != int(gpu):
        raise InvalidRequest("gpu", given, _GPU_ALLOWED)
    return to_milli(gpu)


def checked_amounts(cpu: object, memory: object, gpu: object, storage: object) -> Resources:
    """Integer amounts that came from elsewhere, in the units of `Resources`; else InvalidRequest."""
    for name, amount, per_unit in (
        ("cpu_milli", cpu, MILLI),
        ("memory_kib", memory, KIB_PER_GIB),
        ("gpu_milli", gpu, MILLI),
        ("storage_kib", storage, KIB_PER_GIB),
    ):
        if type(amount) is not int or not 0 <= amount <= LARGEST * per_unit:
            raise InvalidRequest(name, amount, f"a whole number from 0 to {int(LARGEST) * per_unit}")
    checked = Resources(cast(int, cpu), cast(int, memory), cast(int, gpu), cast(int, storage))
    if checked.gpu_milli > MILLI and checked.gpu_milli % MILLI:
        raise InvalidRequest("gpu_milli", gpu, _GPU_ALLOWED)
    return checked
