from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.snapshot import FleetSnapshot

ARRAYS = (
    "cpu", "memory", "gpu", "storage", "slots", "whole_gpus", "largest_gpu_share", "load", "heartbeat",
    "accepting", "gone", "features", "cpu_capacity", "memory_capacity", "gpu_capacity", "storage_capacity",
    "slots_capacity",
)  # fmt: skip


def assert_same(first: FleetSnapshot, second: FleetSnapshot) -> None:
    assert first.names == second.names
    assert first.index == second.index
    assert first.states == second.states
    assert first.held == second.held
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    for label, value in (("zone", "x"), ("gpu", "y")):
        np.testing.assert_array_equal(first.label_mask(label, value), second.label_mask(label, value))


@given(st.lists(st.lists(st.from_type(NodeState), max_size=4) | st.sampled_from("abcdef"), max_size=12))
def test_updates_and_removals_equal_a_rebuild(steps: list[list[NodeState] | str]) -> None:
    snapshot = FleetSnapshot()
    states: dict[str, NodeState] = {}
    for step in steps:
        snapshot.label_mask("zone", "x")
        if isinstance(step, str):
            snapshot.remove(step)
            states.pop(step, None)
        else:
            snapshot.apply(step)
            states.update((state.name, state) for state in step)
        assert_same(snapshot, FleetSnapshot(states.values()))


@given(st.lists(st.from_type(NodeState), min_size=1, max_size=6), st.data())
def test_changed_rows_are_those_that_were_written(states: list[NodeState], data: st.DataObject) -> None:
    snapshot = FleetSnapshot(states)
    mark, membership = snapshot.changes, snapshot.membership
    written = data.draw(st.lists(st.sampled_from(snapshot.names), max_size=5))
    for name in written:
        snapshot.apply([dataclasses.replace(snapshot.states[snapshot.index[name]], pressure=0.5)])
    assert snapshot.membership == membership
    assert snapshot.changed_since(mark) == [snapshot.index[name] for name in written]


def test_who_is_too_far_behind_is_told_to_look_at_everything(node: Callable[..., NodeState]) -> None:
    snapshot = FleetSnapshot([node("a")])
    start = snapshot.changes
    for _ in range(10_000):
        snapshot.apply([node("a")])
    assert snapshot.changed_since(start) is None
    assert snapshot.changed_since(snapshot.changes - 100) == [0] * 100


def test_it_grows_past_its_first_size_in_name_order(node: Callable[..., NodeState]) -> None:
    names = [f"n{number:03}" for number in range(200)]
    snapshot = FleetSnapshot()
    for name in reversed(names):
        snapshot.apply([node(name)])
    assert snapshot.names == names
    assert snapshot.cpu.tolist() == [8.0] * 200


def test_units_reciprocals_and_load(node: Callable[..., NodeState]) -> None:
    state = node(
        "a",
        cpu_available=2000,
        memory_available=16 << 20,
        gpu_capacity=2,
        gpu_free=(1000, 500),
        storage_capacity=100 << 20,
        storage_available=90 << 20,
        pressure=0.7,
        version=42,
    )
    snapshot = FleetSnapshot([state])
    assert snapshot.features[:, 0].tolist() == [1, 1 / 2, 1 / 16, 1 / 1.5, 0.75]
    assert (snapshot.gpu[0], snapshot.whole_gpus[0], snapshot.largest_gpu_share[0]) == (1.5, 1, 1.0)
    assert snapshot.storage[0] == 90
    assert snapshot.version == 42
    assert dataclasses.replace(state, pressure=1.2).load == 1.2
    assert math.isnan(dataclasses.replace(state, pressure=math.nan).load)


def test_a_node_without_a_resource_has_no_load_from_it(node: Callable[..., NodeState]) -> None:
    assert node("a", cpu_capacity=0, memory_capacity=0).load == 0.0


def test_removing_an_unknown_node_changes_nothing(node: Callable[..., NodeState]) -> None:
    snapshot = FleetSnapshot([node("a")])
    before = snapshot.changes
    snapshot.remove("b")
    assert (snapshot.changes, snapshot.names) == (before, ["a"])


@pytest.mark.parametrize(
    ("gpu_milli", "fits"), [(0, True), (250, True), (600, True), (1000, True), (2000, False), (999, True)]
)
def test_gpu_devices_count_one_by_one(node: Callable[..., NodeState], gpu_milli: int, fits: bool) -> None:
    assert node("a", gpu_capacity=3, gpu_free=(1000, 500, 500)).fits_gpu(gpu_milli) is fits


def test_two_half_free_devices_are_not_one(node: Callable[..., NodeState]) -> None:
    state = node("a", gpu_capacity=2, gpu_free=(500, 500))
    assert state.fits_gpu(500)
    assert not state.fits_gpu(600)
    assert not state.fits_gpu(1000)
