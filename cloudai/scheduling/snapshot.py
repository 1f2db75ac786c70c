"""The fleet as numpy arrays, one entry per node, kept fresh row by row (spec section 4).

Rows are in the order of the nodes' names. So the first of several equal rows is the one of the lowest name,
and every process that has the same fleet breaks ties alike.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.units import KIB_PER_GIB, MILLI

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_COLUMNS = 18
_FIRST_ROWS = 16
#: Changes that are remembered one by one; who is further behind looks at every row again.
_LOG_LIMIT = 4096


class FleetSnapshot:
    """All nodes of the fleet. Not safe for threads: the owner guards it.

    Arrays have shape (n,), float64, and are views that change in place: over the nodes in name order, in
    cores, GiB and devices. `features` has shape (5, n): 1, 1/cpu, 1/memory, 1/gpu (0 where nothing is
    available) and the load; a weight vector times it is the contention of every node in one call (a third of
    the time of the (n, 4) layout).
    """

    #: available cores
    cpu: FloatArray
    #: available memory, GiB
    memory: FloatArray
    #: available GPU shares of all devices together
    gpu: FloatArray
    #: available disk, GiB
    storage: FloatArray
    #: free slots
    slots: FloatArray
    #: devices that are wholly free
    whole_gpus: FloatArray
    #: the largest free share of one device, 0..1
    largest_gpu_share: FloatArray
    #: L_j
    load: FloatArray
    #: epoch s
    heartbeat: FloatArray
    #: bool: takes new tasks
    accepting: BoolArray
    #: bool: is in service no more
    gone: BoolArray
    #: (5, n): 1, 1/cpu, 1/memory, 1/gpu, load
    features: FloatArray
    #: capacity: cores, GiB, devices, GiB
    cpu_capacity: FloatArray
    memory_capacity: FloatArray
    gpu_capacity: FloatArray
    storage_capacity: FloatArray
    #: capacity: tasks at once
    slots_capacity: FloatArray

    def __init__(self, states: Iterable[NodeState] = ()) -> None:
        #: highest version of any row applied so far
        self.version = 0
        #: grows whenever rows appear, vanish or move
        self.membership = 0
        #: rows written so far; a position for `changed_since`
        self.changes = 0
        #: node name of each row, ascending
        self.names: list[str] = []
        #: row of each node name
        self.index: dict[str, int] = {}
        #: the state behind each row
        self.states: list[NodeState] = []
        #: nodes kept for a starving task: name to task id
        self.held: dict[str, str] = {}
        self._log: list[int] = []
        self._label_masks: dict[tuple[str, str], BoolArray] = {}
        self._block = np.zeros((_COLUMNS, _FIRST_ROWS))
        #: accepting, gone
        self._standing = np.zeros((2, _FIRST_ROWS), dtype=np.bool_)
        self._bind()
        self.apply(states)

    def __len__(self) -> int:
        return len(self.names)

    def apply(self, states: Iterable[NodeState]) -> None:
        """Replace the rows of these nodes, add the new ones; of several states of a node the last counts."""
        new: dict[str, NodeState] = {}
        index = self.index
        for state in states:
            row = index.get(state.name)
            if row is None:
                new[state.name] = state
            else:
                self._write(row, state)
        if new:
            self._add(list(new.values()))

    def remove(self, name: str) -> None:
        """Forget a node; nothing happens if it is not known."""
        gone = self.index.get(name)
        if gone is None:
            return
        self.held.pop(name, None)
        self._rearrange([row for row in range(len(self.names)) if row != gone])

    def changed_since(self, changes: int) -> list[int] | None:
        """Rows written since that value of `changes`, with repeats; None: too many, look at all.

        It says nothing about rows that moved: compare `membership` first.
        """
        behind = self.changes - changes
        if behind == 0:
            return []
        if behind > len(self._log):
            return None
        return self._log[-behind:]

    def label_mask(self, label: str, value: str) -> BoolArray:
        """Which nodes announce this label with this value; shape (n,)."""
        mask = self._label_masks.get((label, value))
        if mask is None:
            found = [state.labels.get(label) == value for state in self.states]
            mask = np.array(found, dtype=np.bool_)
            self._label_masks[label, value] = mask
        return mask

    def _write(self, row: int, state: NodeState) -> None:
        before = self.states[row]
        if before.labels is not state.labels and before.labels != state.labels:
            self._label_masks.clear()
        self.states[row] = state
        self._fill(row, state)
        self.changes += 1
        self._log.append(row)
        if len(self._log) > 2 * _LOG_LIMIT:
            del self._log[:_LOG_LIMIT]

    def _fill(self, row: int, state: NodeState) -> None:
        cpu = state.cpu_available
        memory = state.memory_available
        shares = state.gpu_free
        gpu = sum(shares)
        self._block[:, row] = (
            1.0,
            MILLI / cpu if cpu > 0 else 0.0,
            KIB_PER_GIB / memory if memory > 0 else 0.0,
            MILLI / gpu if gpu > 0 else 0.0,
            state.load,
            cpu / MILLI,
            memory / KIB_PER_GIB,
            gpu / MILLI,
            state.storage_available / KIB_PER_GIB,
            state.slots_available,
            shares.count(MILLI),
            max(shares) / MILLI if shares else 0.0,
            state.heartbeat,
            state.cpu_capacity / MILLI,
            state.memory_capacity / KIB_PER_GIB,
            state.gpu_capacity,
            state.storage_capacity / KIB_PER_GIB,
            state.slots_capacity,
        )
        self._standing[:, row] = (state.accepting, state.gone)
        if state.held_for:
            self.held[state.name] = state.held_for
        elif self.held:
            self.held.pop(state.name, None)
        if state.version > self.version:
            self.version = state.version

    def _add(self, states: list[NodeState]) -> None:
        first = len(self.names)
        total = first + len(states)
        if total > self._standing.shape[1]:
            rows = max(total, 2 * self._standing.shape[1])
            block = np.zeros((_COLUMNS, rows))
            block[:, :first] = self._block[:, :first]
            standing = np.zeros((2, rows), dtype=np.bool_)
            standing[:, :first] = self._standing[:, :first]
            self._block, self._standing = block, standing
        for row, state in enumerate(states, first):
            self.names.append(state.name)
            self.states.append(state)
            self._fill(row, state)
        self._rearrange(sorted(range(total), key=self.names.__getitem__))

    def _rearrange(self, order: list[int]) -> None:
        """Keep these rows, in this order."""
        kept = len(order)
        if order != list(range(len(self.names))):
            self._block[:, :kept] = self._block[:, order]
            self._standing[:, :kept] = self._standing[:, order]
            self.names = [self.names[row] for row in order]
            self.states = [self.states[row] for row in order]
        self.index = {name: row for row, name in enumerate(self.names)}
        self.membership += 1
        self.changes += 1
        self._log.clear()
        self._label_masks.clear()
        self._bind()

    def _bind(self) -> None:
        rows = self._block[:, : len(self.names)]
        self.features = rows[:5]
        (self.load, self.cpu, self.memory, self.gpu, self.storage, self.slots) = rows[4:10]
        (self.whole_gpus, self.largest_gpu_share, self.heartbeat) = rows[10:13]
        (self.cpu_capacity, self.memory_capacity, self.gpu_capacity, self.storage_capacity) = rows[13:17]
        self.slots_capacity = rows[17]
        self.accepting, self.gone = self._standing[:, : len(self.names)]
