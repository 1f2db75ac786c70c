"""Which nodes can take a task, and why the others cannot (spec section 5).

Three different answers: a node that cannot now (`Filter.verdict`, `explain_node`), a node that could never
(`could_ever_hold`), and an error, which is an exception.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from cloudai.scheduling.formula import gpu_fits
from cloudai.scheduling.nodes import UNAVAILABLE, NodeState
from cloudai.scheduling.requests import TaskRequest
from cloudai.scheduling.snapshot import BoolArray, FleetSnapshot, FloatArray
from cloudai.scheduling.units import KIB_PER_GIB, MILLI

CodeArray = NDArray[np.uint8]


class Reason(StrEnum):
    """Why a node cannot take a task. A node counts under the first that holds, in this order."""

    GONE = "gone"
    NOT_ACCEPTING = "not_accepting"
    TARGET = "target"
    CONSTRAINT = "constraint"
    CPU = "cpu"
    MEMORY = "memory"
    GPU = "gpu"
    STORAGE = "storage"
    SLOTS = "slots"
    HELD = "held"
    STALE = "stale"


REASONS: tuple[Reason, ...] = tuple(Reason)
#: Code of a node that no lasting reason refuses; reason r has the code 1 + its place in REASONS.
NO_REASON = 0
_CODES = {reason: code for code, reason in enumerate(REASONS, 1)}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason why one node cannot take one task now, in words."""

    reason: Reason
    #: what the task needs
    need: str
    #: what the node has
    have: str


def fresh(snapshot: FleetSnapshot, now: float, staleness_s: float) -> BoolArray:
    """Which nodes have telemetry no older than the bound; bool of shape (n,) (spec section 4)."""
    return snapshot.heartbeat >= now - staleness_s


def lasting_codes(task: TaskRequest, snapshot: FleetSnapshot) -> CodeArray:
    """For each node the code of the first reason that lasts, uint8 of shape (n,).

    Held and stale are not among them: they depend on the task's id and on the clock.
    """
    amounts = task.resources
    codes: CodeArray = np.zeros(len(snapshot), dtype=np.uint8)
    # From the last reason to the first, so that the first one stays.
    _mark(codes, snapshot.slots < 1, Reason.SLOTS)
    if amounts.storage_kib:
        _mark(codes, snapshot.storage < amounts.storage, Reason.STORAGE)
    if amounts.gpu_milli:
        _mark(codes, _too_little_gpu(task, snapshot), Reason.GPU)
    _mark(codes, snapshot.memory < amounts.memory, Reason.MEMORY)
    _mark(codes, snapshot.cpu < amounts.cpu, Reason.CPU)
    for label, value in task.constraints:
        _mark(codes, ~snapshot.label_mask(label, value), Reason.CONSTRAINT)
    if task.target_worker_id is not None:
        _mark(codes, ~_target_mask(task.target_worker_id, snapshot), Reason.TARGET)
    _mark(codes, ~snapshot.accepting, Reason.NOT_ACCEPTING)
    _mark(codes, snapshot.gone, Reason.GONE)
    return codes


def lasting_code(task: TaskRequest, state: NodeState) -> int:
    """The code of `lasting_codes` for one node."""
    reason = next(_lasting_reasons(task, state), None)
    return NO_REASON if reason is None else _CODES[reason]


def explain_node(
    task: TaskRequest, snapshot: FleetSnapshot, row: int, *, now: float, staleness_s: float, task_id: str = ""
) -> list[Refusal]:
    """Every reason why the node of this row cannot take the task now, need beside have; empty: it can."""
    state = snapshot.states[row]
    refusals = [_refusal(reason, task, state) for reason in _lasting_reasons(task, state)]
    if state.held_for and state.held_for != task_id:
        refusals.append(Refusal(Reason.HELD, "a node that is not held", f"held for task {state.held_for}"))
    if not state.heartbeat >= now - staleness_s:
        need = f"a heartbeat in the last {staleness_s:g} s"
        refusals.append(Refusal(Reason.STALE, need, f"{now - state.heartbeat:.1f} s ago"))
    return refusals


def could_ever_hold(task: TaskRequest, snapshot: FleetSnapshot) -> BoolArray:
    """Which nodes could take the task with nothing else on them and their engines there: capacity, labels, target; bool
    of shape (n,).
    """
    amounts = task.resources
    mask: BoolArray = snapshot.cpu_capacity >= amounts.cpu
    mask &= snapshot.memory_capacity >= amounts.memory
    mask &= snapshot.gpu_capacity >= amounts.gpu
    mask &= snapshot.storage_capacity >= amounts.storage
    mask &= snapshot.slots_capacity >= 1
    mask &= _matching(task, snapshot, later=True)
    return mask


def matching(task: TaskRequest, snapshot: FleetSnapshot) -> BoolArray:
    """Which nodes have the labels, and are the target, that the task asks for; bool of shape (n,)."""
    return _matching(task, snapshot, later=False)


def largest_node(task: TaskRequest, snapshot: FleetSnapshot) -> int | None:
    """Row of the node whose capacity comes nearest to the task; None if there are no nodes.

    Nearest: the resource that falls shortest is least short. Only nodes that match target and labels count,
    if any does.
    """
    if not len(snapshot):
        return None
    amounts = task.resources
    needed: FloatArray = np.zeros(len(snapshot))
    for need, capacity in (
        (amounts.cpu, snapshot.cpu_capacity),
        (amounts.memory, snapshot.memory_capacity),
        (amounts.gpu, snapshot.gpu_capacity),
        (amounts.storage, snapshot.storage_capacity),
    ):
        if need:
            np.maximum(needed, np.where(capacity > 0, need / np.maximum(capacity, 1e-9), np.inf), out=needed)
    matched = _matching(task, snapshot, later=True)
    if matched.any():
        rows = np.flatnonzero(matched)
        return int(rows[needed[rows].argmin()])
    return int(needed.argmin())


def why_never(task: TaskRequest, snapshot: FleetSnapshot) -> str:
    """One sentence on what the task asks that no node has, with the node that comes nearest."""
    asked = task.resources.describe()
    if task.constraints:
        asked += " with " + ", ".join(f"{label}={value}" for label, value in task.constraints)
    if task.target_worker_id is not None:
        asked += f" on node {task.target_worker_id}"
    row = largest_node(task, snapshot)
    if row is None:
        return f"no node can ever hold {asked}: there are no nodes"
    state = snapshot.states[row]
    capacity = (
        f"cpu {state.cpu_capacity / MILLI:g}, memory {state.memory_capacity / KIB_PER_GIB:g} GiB, "
        f"gpu {state.gpu_capacity}, storage {state.storage_capacity / KIB_PER_GIB:g} GiB, "
        f"slots {state.slots_capacity}"
    )
    labels = ", ".join(f"{label}={value}" for label, value in sorted(state.labels.items()))
    return f"no node can ever hold {asked}; nearest to it is {state.name} with {capacity}" + (
        f", labels {labels}" if labels else ""
    )


def _mark(codes: CodeArray, refused: BoolArray, reason: Reason) -> None:
    np.copyto(codes, _CODES[reason], where=refused, casting="unsafe")


def _too_little_gpu(task: TaskRequest, snapshot: FleetSnapshot) -> BoolArray:
    fits: BoolArray = gpu_fits(task.resources.gpu_milli, snapshot.largest_gpu_share, snapshot.whole_gpus)
    return ~fits


def _target_mask(target: str, snapshot: FleetSnapshot) -> BoolArray:
    mask: BoolArray = np.zeros(len(snapshot), dtype=np.bool_)
    row = snapshot.index.get(target)
    if row is not None:
        mask[row] = True
    return mask


def _matching(task: TaskRequest, snapshot: FleetSnapshot, *, later: bool) -> BoolArray:
    """With `later`, those too that match once their engine answers."""
    mask: BoolArray = np.ones(len(snapshot), dtype=np.bool_)
    for label, value in task.constraints:
        has = snapshot.label_mask(label, value)
        mask &= has | snapshot.label_mask(label, UNAVAILABLE) if later else has
    if task.target_worker_id is not None:
        mask &= _target_mask(task.target_worker_id, snapshot)
    return mask


def _lasting_reasons(task: TaskRequest, state: NodeState) -> Iterator[Reason]:
    amounts = task.resources
    if state.gone:
        yield Reason.GONE
    elif not state.accepting:
        yield Reason.NOT_ACCEPTING
    if task.target_worker_id is not None and task.target_worker_id != state.name:
        yield Reason.TARGET
    if task.constraints and any(state.labels.get(label) != value for label, value in task.constraints):
        yield Reason.CONSTRAINT
    if state.cpu_available < amounts.cpu_milli:
        yield Reason.CPU
    if state.memory_available < amounts.memory_kib:
        yield Reason.MEMORY
    if not state.fits_gpu(amounts.gpu_milli):
        yield Reason.GPU
    if state.storage_available < amounts.storage_kib:
        yield Reason.STORAGE
    if state.slots_available < 1:
        yield Reason.SLOTS


def _refusal(reason: Reason, task: TaskRequest, state: NodeState) -> Refusal:
    amounts = task.resources
    match reason:
        case Reason.GONE:
            return Refusal(reason, "a node in service", "down or lost")
        case Reason.NOT_ACCEPTING:
            return Refusal(reason, "a node that takes new tasks", "draining or silent")
        case Reason.TARGET:
            return Refusal(reason, f"node {task.target_worker_id}", f"node {state.name}")
        case Reason.CONSTRAINT:
            missing = [
                (label, value) for label, value in task.constraints if state.labels.get(label) != value
            ]
            need = ", ".join(f"{label}={value}" for label, value in missing)
            have = ", ".join(f"{label}={state.labels.get(label, '(none)')}" for label, _ in missing)
            return Refusal(reason, need, have)
        case Reason.CPU:
            return Refusal(reason, f"{amounts.cpu:g} cores", f"{state.cpu_available / MILLI:g} cores")
        case Reason.MEMORY:
            return Refusal(reason, f"{amounts.memory:g} GiB", f"{state.memory_available / KIB_PER_GIB:g} GiB")
        case Reason.GPU:
            free = ", ".join(f"{share / MILLI:g}" for share in state.gpu_free) or "no device"
            if amounts.gpu_milli < MILLI:
                return Refusal(reason, f"{amounts.gpu:g} of one device", f"free of each device: {free}")
            return Refusal(reason, f"{amounts.gpu:g} wholly free devices", f"free of each device: {free}")
        case Reason.STORAGE:
            return Refusal(
                reason, f"{amounts.storage:g} GiB", f"{state.storage_available / KIB_PER_GIB:g} GiB"
            )
        case _:
            return Refusal(reason, "1 free slot", f"{state.slots_available} free slots")
