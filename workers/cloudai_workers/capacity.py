"""What a node has, and how hard it is pressed: detected from the machine, or declared by its operator."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from cloudai_workers.nvidia import GpuDevice, gpu_devices, gpu_use
from cloudai_workers.runners.cgroups import MOUNT, groups_of, is_unified

#: Most of anything that one node may declare.
MAX_DECLARED = 1e6
#: The container engine's smallest memory limit, in KiB.
MIN_MEMORY_KIB = 6 * 1024
#: A version-1 limit at or above this many bytes means none.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a node offers to jobs."""

    #: Thousandths of a core.
    cpu_milli: int
    #: KiB of memory.
    memory_kib: int
    #: Ids of the GPU devices, as the container engine takes them.
    gpus: tuple[str, ...]
    #: KiB of disk below the work folder.
    storage_kib: int
    #: Jobs at once.
    slots: int


class InvalidCapacity(ValueError):
    """A declared capacity cannot be; the message names the setting, the value and what is allowed."""


def detect_capacity(
    work_dir: Path,
    *,
    cpu: float | None = None,
    memory_gib: float | None = None,
    storage_gib: float | None = None,
    gpus: Sequence[str] | None = None,
    slots: int = 0,
) -> Capacity:
    """The node's capacity: what is declared, and for the rest what the machine has and this process may use.

    Args:
        work_dir: folder whose file system holds the jobs' data; the nearest existing parent counts.
        cpu: declared cores.
        memory_gib: declared memory in GiB.
        storage_gib: declared disk in GiB.
        gpus: declared device ids; an empty tuple declares that there is none.
        slots: declared jobs at once; 0 takes the number of cores, at least 1.

    Raises:
        InvalidCapacity: a declared value is out of range.

    """
    cores = _declared("cpu", "cores", cpu, lowest=0.01) if cpu is not None else detect_cores()
    memory_kib = (
        int(_declared("memory", "GiB", memory_gib, lowest=MIN_MEMORY_KIB / 2**20) * 2**20)
        if memory_gib is not None
        else detect_memory_bytes() // 1024
    )
    storage_kib = (
        int(_declared("storage", "GiB", storage_gib, lowest=0.0) * 2**20)
        if storage_gib is not None
        else _disk_free_bytes(work_dir) // 1024
    )
    if gpus is None:
        gpus = tuple(device.id for device in gpu_devices())
    elif len(set(gpus)) != len(gpus) or not all(g and g.isprintable() for g in gpus):
        raise InvalidCapacity(f"gpus: {gpus!r}: a list of device ids, not empty, each once")
    if not 0 <= slots <= 100_000:
        raise InvalidCapacity(f"slots: {slots!r}: a whole number from 1 to 100000, or 0 for one a core")
    return Capacity(int(cores * 1000), memory_kib, tuple(gpus), storage_kib, slots or max(1, int(cores)))


def _declared(name: str, unit: str, value: object, *, lowest: float) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not lowest <= value <= MAX_DECLARED
    ):
        raise InvalidCapacity(f"{name}: {value!r}: a number of {unit} from {lowest:g} to {MAX_DECLARED:g}")
    return float(value)


def detect_cores(mount: Path = MOUNT, groups: Mapping[str, str] | None = None) -> float:
    """Cores that this process may use: its CPU set, and the quotas of its control group and all above it."""
    cores = float(len(os.sched_getaffinity(0)))
    for folder in _group_folders("cpu", mount, groups):
        if is_unified(mount):
            quota, _, period = _read(folder / "cpu.max").partition(" ")
        else:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:  # "max", "-1" and "" are no limit
            cores = min(cores, int(quota) / int(period))
    return cores


def detect_memory_bytes(mount: Path = MOUNT, groups: Mapping[str, str] | None = None) -> int:
    """Bytes of memory that this process may use: the machine's, or the lowest limit of its control groups."""
    memory = int(psutil.virtual_memory().total)
    file = "memory.max" if is_unified(mount) else "memory.limit_in_bytes"
    for folder in _group_folders("memory", mount, groups):
        text = _read(folder / file)
        if text.isdecimal() and int(text) < _NO_LIMIT:
            memory = min(memory, int(text))
    return memory


def _group_folders(controller: str, mount: Path, groups: Mapping[str, str] | None) -> list[Path]:
    """The control group of this process and all above it, as folders."""
    groups = groups_of("self") if groups is None else groups
    if is_unified(mount):
        root, path = mount, groups.get("", "/")
    else:
        root, path = mount / controller, groups.get(controller, "/")
    folder = root / path.strip("/")
    return [folder, *(parent for parent in folder.parents if parent == root or root in parent.parents)]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _disk_free_bytes(folder: Path) -> int:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class Sample:
    """How a node is used at one moment."""

    #: Load average of one minute over cores; above 1 when more wants to run than can.
    cpu_pressure: float
    #: Share of the cores that was busy since the previous sample.
    cpu_use: float
    #: Share of the memory that is in use (what cannot be given back).
    memory_use: float
    #: Use of the busiest GPU, of its cores or its memory; 0 without one.
    gpu_use: float

    @property
    def pressure(self) -> float:
        """The largest of CPU pressure, memory use and GPU use (spec section 4)."""
        return max(self.cpu_pressure, self.memory_use, self.gpu_use)


class Telemetry:
    """Takes samples of this machine. One thread at a time."""

    def __init__(self, devices: tuple[GpuDevice, ...] | None = None) -> None:
        """Prepare; the first sample's CPU use is that since now."""
        self._devices = gpu_devices() if devices is None else devices
        self._cores = os.cpu_count() or 1
        self._busy_s, self._at = self._cpu_busy_s(), time.monotonic()

    @staticmethod
    def _cpu_busy_s() -> float:
        times = psutil.cpu_times()
        # Linux counts guests' time in user and nice already.
        return float(times.user + times.nice + times.system + times.irq + times.softirq)

    def sample(self) -> Sample:
        """The numbers of now."""
        busy_s, at = self._cpu_busy_s(), time.monotonic()
        used_cores = max(0.0, busy_s - self._busy_s) / max(at - self._at, 1e-3)
        self._busy_s, self._at = busy_s, at
        memory = psutil.virtual_memory()
        used = memory.total - memory.available
        return Sample(
            # The load average counts the whole machine, so it is set against all of its cores.
            cpu_pressure=os.getloadavg()[0] / self._cores,
            cpu_use=min(1.0, used_cores / self._cores),
            memory_use=used / memory.total,
            gpu_use=gpu_use(self._devices),
        )
