"""NVIDIA GPUs of this machine, by NVML. Without its driver there are none, and nothing is said."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One GPU."""

    #: Unique id, which stays the same across restarts, as the container engine takes it.
    id: str
    #: Model name.
    model: str
    #: Memory in bytes.
    memory_bytes: int


def _start() -> bool:
    try:
        pynvml.nvmlInit()  # counted by NVML itself: a second call is cheap
    except pynvml.NVMLError:
        return False
    return True


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def gpu_devices() -> tuple[GpuDevice, ...]:
    """The GPUs that answer, in the driver's order."""
    if not _start():
        return ()
    found = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            found.append(
                GpuDevice(
                    id=_text(pynvml.nvmlDeviceGetUUID(handle)),
                    model=_text(pynvml.nvmlDeviceGetName(handle)),
                    memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                )
            )
    except pynvml.NVMLError:
        pass  # a device that fell off the bus: offer those that still answer
    finally:
        pynvml.nvmlShutdown()
    return tuple(found)


def gpu_use(devices: tuple[GpuDevice, ...]) -> float:
    """Use of the busiest of these GPUs, 0 to 1, of its cores or of its memory; 0 when none answers."""
    if not devices or not _start():
        return 0.0
    highest = 0.0
    try:
        for device in devices:
            handle = pynvml.nvmlDeviceGetHandleByUUID(device.id)
            cores = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            highest = max(highest, cores, memory.used / memory.total)
    except pynvml.NVMLError:
        pass
    finally:
        pynvml.nvmlShutdown()
    return highest
