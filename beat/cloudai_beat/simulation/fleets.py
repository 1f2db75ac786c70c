"""The fleet of a simulation: drawn to suit a trace, or read from a file."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.units import KIB_PER_GIB, MILLI, parse_gib, parse_number, to_kib
from cloudai_beat.simulation.errors import FleetRefused, TraceRefused
from cloudai_beat.simulation.workload import IntColumn, Trace, described

#: Nodes of a drawn fleet unless said otherwise, and most of any.
NODES_DEFAULT, NODES_MOST = 16, 10_000

#: Fastest over slowest node unless said otherwise, and most.
SPREAD_DEFAULT, SPREAD_MOST = 4.0, 100.0

#: Part of a drawn fleet that can hold every job.
_LARGE_SHARE = 3
#: Sizes of the other nodes, as parts of a large one.
_SIZES = (0.25, 0.5, 1.0)
#: A large node holds so many jobs of the usual size at least.
_USUAL_JOBS = 8
#: Where fewer jobs than this ask for GPUs, half of the nodes have none.
_FEW_GPU_JOBS = 0.5

_SPEED_RANGE = (0.01, 100.0)


@dataclass(frozen=True, slots=True)
class SimulatedNode:
    """A node of a simulation, in the integer units of the scheduler."""

    name: str
    #: thousandths of cores, KiB, thousandths of devices (whole devices), KiB
    capacity: tuple[int, int, int, int]
    #: tasks at once
    slots: int
    #: 1: the machine on which the trace's run times were measured; 2: twice as fast; None: drawn
    speed: float | None = None


def drawn_fleet(trace: Trace, nodes: int, rng: np.random.Generator) -> list[SimulatedNode]:
    """Unequal nodes, of which a third can hold every job of the trace; speeds are left open."""
    largest = trace.demand.max(axis=0)
    usual = np.quantile(trace.demand, 0.75, axis=0, method="higher")
    large = np.maximum(largest, usual * _USUAL_JOBS)
    # Whole cores and devices.
    large[0] = _round_up(large[0], MILLI)
    large[2] = _round_up(large[2], MILLI)
    holding_all = ceil(nodes / _LARGE_SHARE)
    with_gpu = nodes
    if 0 < np.count_nonzero(trace.demand[:, 2]) < _FEW_GPU_JOBS * len(trace):
        with_gpu = max(holding_all, ceil(nodes / 2))
    smallest = np.maximum(trace.demand.min(axis=0), 1)
    digits = max(2, len(str(nodes)))
    fleet = []
    for index in range(nodes):
        part = 1.0 if index < holding_all else float(rng.choice(_SIZES))
        capacity = np.where(large > 0, np.maximum(np.ceil(large * part), np.minimum(smallest, large)), 0)
        capacity = capacity.astype(np.int64)
        capacity[0], capacity[2] = _round_up(capacity[0], MILLI), _round_up(capacity[2], MILLI)
        if index >= with_gpu:
            capacity[2] = 0
        cpu, memory, gpu, storage = (int(amount) for amount in capacity)
        name = f"node-{index + 1:0{digits}d}"
        fleet.append(SimulatedNode(name, (cpu, memory, gpu, storage), _slots(trace, capacity)))
    return fleet


def _slots(trace: Trace, capacity: IntColumn) -> int:
    """As many as there could be of the smallest jobs: the resources decide, not the slots."""
    least = trace.demand.min(axis=0)
    asked = least > 0
    return max(1, int((capacity[asked] // least[asked]).max(initial=1)))


def with_speeds(fleet: list[SimulatedNode], spread: float, rng: np.random.Generator) -> list[SimulatedNode]:
    """The fleet with a speed for every node: evenly spaced in the logarithm, 1 in the middle, dealt at random."""
    places = np.linspace(-0.5, 0.5, len(fleet)) if len(fleet) > 1 else np.zeros(1)
    speeds = spread ** rng.permutation(places)
    return [
        node if node.speed is not None else replace(node, speed=float(speed))
        for node, speed in zip(fleet, speeds, strict=True)
    ]


def check_holds(trace: Trace, fleet: list[SimulatedNode]) -> None:
    """TraceRefused with the line of the first job that no node of the fleet could ever hold."""
    capacity = np.array([node.capacity for node in fleet], dtype=np.int64)
    shapes, first, inverse = np.unique(trace.demand, axis=0, return_index=True, return_inverse=True)
    held = np.any(np.all(shapes[:, None, :] <= capacity[None, :, :], axis=2), axis=1)
    if held.all():
        return
    refused = ~held[inverse.reshape(-1)]
    job = min(first[~held], key=lambda row: (trace.line[row], row))
    raise TraceRefused(
        trace.source,
        f"needs {described(trace.demand[job])}, which no node can hold (of each resource the fleet's largest have "
        f"{described(capacity.max(axis=0))}); {int(refused.sum())} of {len(trace)} jobs are like that. "
        "Give larger nodes in the fleet file, or leave these jobs out of the trace",
        int(trace.line[job]) or None,
    )


def read_fleet(path: Path) -> list[SimulatedNode]:
    """Nodes of a TOML or JSON file: `[[node]]` tables, or `{"node": [...]}`. In the order of their names.

    Raises:
        FleetRefused: unreadable, or with every field that is not allowed.
    """
    values = _parsed(path)
    reasons = [f"{key}: unknown key; allowed: node" for key in sorted(values.keys() - {"node"})]
    tables = values.get("node")
    if not isinstance(tables, list) or not tables:
        raise FleetRefused(path.name, [*reasons, "node: at least one [[node]] table is needed"])
    fleet: list[SimulatedNode] = []
    for index, table in enumerate(tables):
        fleet += _nodes(f"node[{index}]", table, len(fleet), reasons)
        if len(fleet) > NODES_MOST:
            reasons.append(f"node: more than {NODES_MOST} nodes in all; that is the most")
            break
    given = Counter(node.name for node in fleet)
    reasons += [f"name: {name!r} is given to {times} nodes" for name, times in given.items() if times > 1]
    if reasons:
        raise FleetRefused(path.name, reasons)
    # The replay's rows stand in the order of their names, which break ties.
    return sorted(fleet, key=lambda node: node.name)


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        values = json.loads(text) if path.name.lower().endswith(".json") else tomllib.loads(text)
    except FileNotFoundError:
        raise FleetRefused(str(path), ["there is no such file"]) from None
    except OSError as error:
        raise FleetRefused(str(path), [f"cannot be read ({error})"]) from error
    except (ValueError, RecursionError) as error:  # both formats' errors, and text that is not UTF-8
        raise FleetRefused(path.name, [f"not readable: {error}"]) from error
    if not isinstance(values, dict):
        raise FleetRefused(path.name, ["an object with the key `node` is allowed"])
    return values


_KEYS = ("name", "count", "cpu", "memory", "gpu", "storage", "slots", "speed")


def _nodes(field: str, table: Any, before: int, reasons: list[str]) -> list[SimulatedNode]:
    """The nodes of one table; what is wrong with it is added to the reasons."""
    if not isinstance(table, dict):
        reasons.append(f"{field}: a table is allowed")
        return []
    found = len(reasons)
    reasons += [f"{field}.{key}: unknown key; allowed: {', '.join(_KEYS)}" for key in table if key not in _KEYS]
    reasons += [f"{field}.{key}: missing" for key in ("cpu", "memory") if key not in table]

    def read(name: str, default: float, parse: Any) -> float:
        try:
            return float(parse(table.get(name, default), f"{field}.{name}"))
        except InvalidRequest as error:
            reasons.append(str(error))
            return default

    cpu, memory, gpu, storage = (
        read("cpu", 1.0, _positive), read("memory", 1.0, _positive_gib), read("gpu", 0, _whole),
        read("storage", 0.0, parse_gib),
    )  # fmt: skip
    count, slots = read("count", 1, _count), read("slots", 1000, _count)
    speed = read("speed", 1.0, _speed) if "speed" in table else None
    name = table.get("name", f"node-{before + 1:02d}")
    if not isinstance(name, str) or not name:
        reasons.append(f"{field}.name: {str(name)[:80]!r} was given; allowed: a text")
    if len(reasons) > found:
        return []
    capacity = (round(cpu * MILLI), to_kib(memory), int(gpu) * MILLI, to_kib(storage))
    names = [name] if count == 1 else [f"{name}-{number + 1}" for number in range(int(count))]
    return [SimulatedNode(each, capacity, int(slots), speed) for each in names]


def _positive(given: object, field: str) -> float:
    value = parse_number(given, field)
    if value < 1 / MILLI:
        raise InvalidRequest(field, given, "a number above 0")
    return value


def _positive_gib(given: object, field: str) -> float:
    value = parse_gib(given, field)
    if value * KIB_PER_GIB < 1:
        raise InvalidRequest(field, given, "a size above 0, such as '64GiB'")
    return value


def _whole(given: object, field: str) -> float:
    value = parse_number(given, field)
    if value != int(value):
        raise InvalidRequest(field, given, "a whole number of devices")
    return value


def _count(given: object, field: str) -> float:
    value = parse_number(given, field)
    if value != int(value) or not 1 <= value <= NODES_MOST:
        raise InvalidRequest(field, given, f"a whole number from 1 to {NODES_MOST}")
    return value


def _speed(given: object, field: str) -> float:
    low, high = _SPEED_RANGE
    value = parse_number(given, field)
    if not low <= value <= high:
        raise InvalidRequest(field, given, f"a number from {low:g} to {high:g}; 1 is the machine of the trace")
    return value


def _round_up(amount: int, unit: int) -> int:
    return -(-int(amount) // unit) * unit
