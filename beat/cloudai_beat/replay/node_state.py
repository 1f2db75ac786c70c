"""Reserving on a node and giving back, compiled: features and load follow as in the live snapshot."""

from __future__ import annotations

from cloudai.scheduling.units import KIB_PER_GIB, MILLI

from .compiled import compiled
from .formulas import reserved_share, take_devices
from .world import World


@compiled
def fits(i: int, j: int, S: World) -> bool:
    """Whether task i fits on node j now; holds are looked at elsewhere (spec section 5)."""
    if (
        S.nodes[j].cpu < S.tasks[i].cpu
        or S.nodes[j].memory < S.tasks[i].memory
        or S.nodes[j].slots < 1
        or S.nodes[j].storage < S.tasks[i].storage
    ):
        return False
    need = S.tasks[i].gpu
    if need > 0:
        if need < MILLI:
            if S.nodes[j].largest_share < need:
                return False
        elif S.nodes[j].whole_gpus * MILLI < need:
            return False
    return bool(S.allowed[S.tasks[i].constraint, j])


@compiled
def could_hold(i: int, j: int, S: World) -> bool:
    """Whether task i fits on node j with nothing else on it."""
    return bool(
        S.nodes[j].cpu_capacity >= S.tasks[i].cpu
        and S.nodes[j].memory_capacity >= S.tasks[i].memory
        and S.nodes[j].gpu_capacity * MILLI >= S.tasks[i].gpu
        and S.nodes[j].storage_capacity >= S.tasks[i].storage
        and S.nodes[j].slots_capacity >= 1
        and S.allowed[S.tasks[i].constraint, j]
    )


@compiled
def refresh(j: int, S: World, pressure: float) -> None:
    """Features and load of a node after what is free of it changed (spec section 4)."""
    cpu, memory, gpu = S.nodes[j].cpu, S.nodes[j].memory, S.nodes[j].gpu
    S.room_cpu[j] = cpu if S.nodes[j].slots > 0 else -1
    S.room_memory[j] = memory
    S.inv_cpu[j] = MILLI / cpu if cpu > 0 else 0.0
    S.inv_memory[j] = KIB_PER_GIB / memory if memory > 0 else 0.0
    S.inv_gpu[j] = MILLI / gpu if gpu > 0 else 0.0
    load = max(
        reserved_share(S.nodes[j].cpu_capacity, cpu),
        reserved_share(S.nodes[j].memory_capacity, memory),
        reserved_share(S.nodes[j].storage_capacity, S.nodes[j].storage),
    )
    if S.nodes[j].gpu_capacity > 0:
        load = max(load, reserved_share(S.nodes[j].gpu_capacity * MILLI, gpu))
    if S.nodes[j].cpu_capacity > 0:
        load = max(load, pressure + S.nodes[j].used / S.nodes[j].cpu_capacity)
    S.load[j] = load


@compiled
def reserve(i: int, j: int, used: int, pressure: float, S: World) -> int:
    """Take task i's amounts on node j, with `used` thousandths of a core in use; the device of a GPU share, else -1."""
    S.nodes[j].cpu -= S.tasks[i].cpu
    S.nodes[j].memory -= S.tasks[i].memory
    S.nodes[j].storage -= S.tasks[i].storage
    S.nodes[j].slots -= 1
    S.nodes[j].used += used
    S.nodes[j].running += 1
    taken = -1
    if S.tasks[i].gpu > 0:
        taken = take_devices(S.devices[j], S.tasks[i].gpu, S.holders[j], i)
        S.nodes[j].gpu -= S.tasks[i].gpu
        _look_at_devices(j, S)
    refresh(j, S, pressure)
    return taken


@compiled
def release(i: int, j: int, used: int, device: int, pressure: float, S: World) -> None:
    """Give back what `reserve` took."""
    S.nodes[j].cpu += S.tasks[i].cpu
    S.nodes[j].memory += S.tasks[i].memory
    S.nodes[j].storage += S.tasks[i].storage
    S.nodes[j].slots += 1
    S.nodes[j].used -= used
    S.nodes[j].running -= 1
    need = S.tasks[i].gpu
    if need > 0:
        if need < MILLI:
            S.devices[j, device] += need
        else:
            for whole in range(S.nodes[j].gpu_capacity):
                if S.holders[j, whole] == i:
                    S.devices[j, whole] = MILLI
                    S.holders[j, whole] = -1
        S.nodes[j].gpu += need
        _look_at_devices(j, S)
    refresh(j, S, pressure)


@compiled
def _look_at_devices(j: int, S: World) -> None:
    whole, largest = 0, 0
    for device in range(S.nodes[j].gpu_capacity):
        share = S.devices[j, device]
        if share == MILLI:
            whole += 1
        largest = max(largest, share)
    S.nodes[j].whole_gpus = whole
    S.nodes[j].largest_share = largest
