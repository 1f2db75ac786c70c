"""A reservation, or its release, as it changes a node's row: what a decision assumes until Redis has confirmed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cloudai.scheduling.formula import take_devices
from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.requests import Resources
from cloudai.scheduling.units import MILLI


def with_reservation(state: NodeState, resources: Resources) -> NodeState:
    """The node's row after it has reserved `resources`, GPU devices chosen as the ledger chooses them.

    Whole devices come from those that are wholly free; a fraction goes to the fullest device that has room for it. The
    caller has checked that it fits.
    """
    return replace(
        state,
        cpu_available=state.cpu_available - resources.cpu_milli,
        memory_available=state.memory_available - resources.memory_kib,
        storage_available=state.storage_available - resources.storage_kib,
        slots_available=state.slots_available - 1,
        gpu_free=_take(state.gpu_free, resources.gpu_milli),
    )


def with_release(state: NodeState, resources: Resources, devices: Sequence[int]) -> NodeState:
    """The node's row after a reservation of `resources` was given back, with the GPU `devices` that it had taken."""
    shares = list(state.gpu_free)
    for device in devices:
        if device < len(shares):
            shares[device] += min(resources.gpu_milli, MILLI)
    return replace(
        state,
        cpu_available=state.cpu_available + resources.cpu_milli,
        memory_available=state.memory_available + resources.memory_kib,
        storage_available=state.storage_available + resources.storage_kib,
        slots_available=state.slots_available + 1,
        gpu_free=tuple(shares),
    )



def _take(free: tuple[int, ...], need: int) -> tuple[int, ...]:
    if need == 0:
        return free
    shares = list(free)
    take_devices(shares, need, [0] * len(shares), 1)
    return tuple(shares)
