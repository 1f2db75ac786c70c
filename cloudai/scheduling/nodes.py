"""One node as the scheduler sees it (spec section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan

from cloudai.scheduling.formula import reserved_share
from cloudai.scheduling.units import MILLI

#: Value of a label that does not hold for the moment, as `containers` while the container engine does not answer:
#: no constraint is matched by it, but what asks for the label is not impossible.
UNAVAILABLE = "engine-away"


@dataclass(frozen=True, slots=True)
class NodeState:
    """A row of the fleet: capacity, what is free of it, and what telemetry says."""

    name: str
    #: cores, in thousandths
    cpu_capacity: int
    #: KiB
    memory_capacity: int
    #: tasks at once
    slots_capacity: int
    #: not reserved: cores, in thousandths
    cpu_available: int
    #: not reserved: KiB
    memory_available: int
    #: not reserved: tasks
    slots_available: int
    #: the last heartbeat by the server's clock, epoch s
    heartbeat: float
    #: devices
    gpu_capacity: int = 0
    #: free share of each device, in thousandths
    gpu_free: tuple[int, ...] = ()
    #: disk, KiB
    storage_capacity: int = 0
    #: disk that is not reserved, KiB
    storage_available: int = 0
    #: what the node announces, label to value
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: largest of load average over cores, memory use and GPU use; 1 is saturated; NaN: could not be measured
    pressure: float = 0.0
    #: takes new tasks: neither draining nor down
    accepting: bool = True
    #: is in service no more: it has signed off, or is lost; it is forgotten unless it comes back
    gone: bool = False
    #: id of the starving task that the node is kept for, or ""
    held_for: str = ""
    #: version of the fleet at which this row last changed
    version: int = 0

    @property
    def gpu_available(self) -> int:
        """Free GPU shares of all devices together, in thousandths."""
        return sum(self.gpu_free)

    @property
    def load(self) -> float:
        """Load L_j: the largest reserved share of a resource, or the pressure if that is more (spec section
        4).
        """
        if isnan(self.pressure):
            return self.pressure
        return max(
            reserved_share(self.cpu_capacity, self.cpu_available),
            reserved_share(self.memory_capacity, self.memory_available),
            reserved_share(self.gpu_capacity * MILLI, self.gpu_available),
            reserved_share(self.storage_capacity, self.storage_available),
            self.pressure,
        )

    def fits_gpu(self, gpu_milli: int) -> bool:
        """Whether the devices can serve it now: so many wholly free ones, or one with that share free."""
        if gpu_milli == 0:
            return True
        if gpu_milli < MILLI:
            return any(free >= gpu_milli for free in self.gpu_free)
        return self.gpu_free.count(MILLI) * MILLI >= gpu_milli

