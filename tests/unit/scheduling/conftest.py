"""Fleets, requests and parameters for the tests of the pure core: hypothesis types and a builder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.requests import Resources, TaskRequest
from cloudai.scheduling.scheduler import Context
from cloudai.scheduling.snapshot import FleetSnapshot
from cloudai.scheduling.task_types import TASK_TYPES

NAMES = ("a", "b", "c", "d", "e", "f")
NOW = 1_000.0
GIB = 1 << 20


@st.composite
def node_states(draw: st.DrawFn) -> NodeState:
    cpu = draw(st.sampled_from([0, 1000, 4000, 16000]))
    memory = draw(st.sampled_from([0, GIB, 8 * GIB, 64 * GIB]))
    storage = draw(st.sampled_from([0, 100 * GIB]))
    shares = draw(st.lists(st.sampled_from([0, 250, 500, 1000]), max_size=3))
    slots = draw(st.integers(0, 4))
    part = st.sampled_from([0, 1, 2, 4])
    standing = draw(st.sampled_from(["up", "up", "up", "draining", "gone"]))
    return NodeState(
        name=draw(st.sampled_from(NAMES)),
        cpu_capacity=cpu,
        memory_capacity=memory,
        slots_capacity=slots,
        cpu_available=cpu * draw(part) // 4,
        memory_available=memory * draw(part) // 4,
        slots_available=draw(st.integers(0, slots)),
        heartbeat=draw(st.sampled_from([NOW - 60, NOW - 10, NOW - 1])),
        gpu_capacity=len(shares),
        gpu_free=tuple(shares),
        storage_capacity=storage,
        storage_available=storage * draw(part) // 4,
        labels=draw(st.dictionaries(st.sampled_from(["zone", "gpu"]), st.sampled_from(["x", "y"]))),
        pressure=draw(st.sampled_from([0.0, 0.3, 0.95, 1.7])),
        accepting=standing == "up",
        gone=standing == "gone",
        held_for=draw(st.sampled_from(["", "", "", "t1", "t2"])),
        version=draw(st.integers(0, 100)),
    )


def task_requests() -> st.SearchStrategy[TaskRequest]:
    text = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=8)
    return st.builds(
        TaskRequest,
        resources=st.builds(
            Resources,
            cpu_milli=st.sampled_from([1, 500, 1000, 4000, 8000, 32000]),
            memory_kib=st.sampled_from([6 * 1024, GIB, 2 * GIB, 16 * GIB, 128 * GIB]),
            gpu_milli=st.sampled_from([0, 0, 250, 500, 1000, 2000]),
            storage_kib=st.sampled_from([0, 0, GIB, 75 * GIB]),
        ),
        task_type=st.sampled_from(TASK_TYPES),
        explicit_type=st.booleans(),
        deadline=st.none() | st.floats(1, 2e9),
        sla_multiplier=st.none() | st.floats(1.5, 2.5),
        family=st.none() | text,
        user_id=st.none() | text,
        target_worker_id=st.none() | st.sampled_from([*NAMES, "nowhere"]),
        constraints=st.sampled_from([(), (("zone", "x"),), (("gpu", "y"), ("zone", "x"))]),
        unplaceable=st.sampled_from(["wait", "reject"]),
    )


def parameter_sets() -> st.SearchStrategy[GAParams]:
    weight = st.floats(0, 1000)
    factor = st.floats(0.01, 100)

    def of_nodes(values: st.SearchStrategy[float]) -> st.SearchStrategy[dict[str, float]]:
        return st.dictionaries(st.sampled_from(NAMES), values)

    def of_types(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[Any, Any]]:
        return st.dictionaries(st.sampled_from(TASK_TYPES), values, max_size=3)

    return st.builds(
        GAParams,
        **dict.fromkeys(("theta1", "theta2", "theta3", "theta4"), st.floats(0, 5)),
        order_margin=st.floats(0, 10),
        order_runtime=st.floats(-10, 10),
        order_lateness=st.floats(0, 1),
        order_caution=st.floats(0, 100),
        order_safety=st.floats(0, 10),
        **dict.fromkeys(("alpha", "beta", "a1", "a2", "a3", "g1", "g2", "g3"), weight),
        affinity=of_types(of_nodes(st.floats(-5, 5))),
        penalty=of_nodes(st.floats(0, 100)),
        speed=of_types(of_nodes(factor)),
        base=of_types(factor),
        version=st.integers(0, 10**9),
    )


st.register_type_strategy(NodeState, node_states())
st.register_type_strategy(TaskRequest, task_requests())
st.register_type_strategy(GAParams, parameter_sets())
st.register_type_strategy(FleetSnapshot, st.lists(node_states(), max_size=6).map(FleetSnapshot))


def build_node(name: str, **fields: Any) -> NodeState:
    """A node of 8 cores and 32 GiB with 8 slots, idle and fresh at NOW, but for what is given."""
    cpu = fields.pop("cpu_capacity", 8000)
    memory = fields.pop("memory_capacity", 32 * GIB)
    values: dict[str, Any] = {
        "cpu_capacity": cpu,
        "memory_capacity": memory,
        "slots_capacity": 8,
        "cpu_available": cpu,
        "memory_available": memory,
        "slots_available": 8,
        "heartbeat": NOW,
    }
    return NodeState(name=name, **(values | fields))


@pytest.fixture
def node() -> Callable[..., NodeState]:
    return build_node


@pytest.fixture
def context() -> Callable[..., Context]:
    """A context over these nodes at NOW: tau 10 s, 20 s to the deadline, default parameters."""

    def build(*states: NodeState, **fields: Any) -> Context:
        values: dict[str, Any] = {"parameters": GAParams(), "tau": 10.0, "slack_s": 20.0, "now": NOW}
        return Context(snapshot=FleetSnapshot(states), **(values | fields))

    return build
