"""The fleet of a simulation: drawn for a trace, or by hand."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from cloudai.scheduling.units import KIB_PER_GIB
from cloudai_beat.simulation.errors import FleetRefused, TraceRefused
from cloudai_beat.simulation.fleets import SimulatedNode, check_holds, drawn_fleet, read_fleet, with_speeds
from cloudai_beat.simulation.trace_files import read_trace
from cloudai_beat.simulation.workload import Job, trace_of

GIB = KIB_PER_GIB
FLEET = """
[[node]]
name = "big"
count = 2
cpu = 64
memory = "256GiB"
gpu = 8
speed = 2.0

[[node]]
cpu = 4
memory = 8
slots = 3
"""


def written(folder: Path, text: str, name: str = "fleet.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("kind", ["burst", "steady", "mixed"])
@pytest.mark.parametrize("nodes", [1, 3, 16])
def test_every_job_fits_on_a_third_of_a_drawn_fleet(kind: str, nodes: int) -> None:
    trace = read_trace(f"synthetic:{kind}")
    fleet = drawn_fleet(trace, nodes, np.random.default_rng(5))
    capacity = np.array([node.capacity for node in fleet])
    holds = (np.unique(trace.demand, axis=0)[:, None] <= capacity[None]).all(axis=2)
    assert len(fleet) == nodes
    assert (holds.sum(axis=1) >= nodes / 3).all()
    assert all(node.capacity[2] % 1000 == 0 for node in fleet)


def test_a_drawn_fleet_is_unequal_and_the_same_for_the_same_seed() -> None:
    trace = read_trace("synthetic:mixed")
    fleet = drawn_fleet(trace, 16, np.random.default_rng(5))
    assert len({node.capacity for node in fleet}) > 1
    assert fleet == drawn_fleet(trace, 16, np.random.default_rng(5))


def test_the_fastest_node_is_as_much_faster_as_asked() -> None:
    fleet = [SimulatedNode(str(index), (1000, GIB, 0, 0), 1) for index in range(9)]
    speeds = [node.speed for node in with_speeds(fleet, 4.0, np.random.default_rng(1))]
    assert max(speeds) / min(speeds) == pytest.approx(4.0)
    assert np.prod(speeds) == pytest.approx(1.0)


def test_a_speed_that_is_given_stays() -> None:
    fleet = [SimulatedNode("a", (1000, GIB, 0, 0), 1, 3.0), SimulatedNode("b", (1000, GIB, 0, 0), 1)]
    assert with_speeds(fleet, 4.0, np.random.default_rng(1))[0].speed == 3.0


def test_a_fleet_file_in_toml_and_in_json(tmp_path: Path) -> None:
    fleet = read_fleet(written(tmp_path, FLEET))
    assert [node.name for node in fleet] == ["big-1", "big-2", "node-03"]
    assert fleet[0].capacity == (64_000, 256 * GIB, 8000, 0)
    assert (fleet[0].speed, fleet[2].speed, fleet[2].slots) == (2.0, None, 3)
    # As the replay wants them: in the order of their names, whichever table comes first.
    assert [node.name for node in read_fleet(written(tmp_path, FLEET.replace('"big"', '"strong"'), "other.toml"))] == [
        "node-03", "strong-1", "strong-2",
    ]  # fmt: skip
    as_json = json.dumps(tomllib.loads(FLEET))
    assert read_fleet(written(tmp_path, as_json, "fleet.json")) == fleet


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at least one [[node]] table is needed"),
        ("node = 3", "at least one [[node]] table is needed"),
        ("[[node]", "not readable"),
        ("[[node]]\ncpu = 4", "node[0].memory: missing"),
        ("[[node]]\ncpu = -4\nmemory = 8", "node[0].cpu: -4 was given"),
        ("[[node]]\ncpu = 0\nmemory = 8", "node[0].cpu: 0 was given; allowed: a number above 0"),
        ("[[node]]\ncpu = 4\nmemory = '8 apples'", "node[0].memory: '8 apples' was given"),
        ("[[node]]\ncpu = 4\nmemory = 8\ngpu = 1.5", "node[0].gpu: 1.5 was given; allowed: a whole number"),
        ("[[node]]\ncpu = 4\nmemory = 8\nspeed = 0", "node[0].speed: 0 was given"),
        ("[[node]]\ncpu = 4\nmemory = 8\ncount = 0", "node[0].count: 0 was given"),
        ("[[node]]\ncpu = 4\nmemory = 8\ncores = 4", "node[0].cores: unknown key"),
        ("[[node]]\ncpu = 4\nmemory = 8\nname = 7", "node[0].name: '7' was given"),
        ("[[node]]\ncpu = 4\nmemory = 8\nname='a'\n[[node]]\ncpu = 4\nmemory = 8\nname='a'", "'a' is given to 2 nodes"),
        ("nodes = 3\n[[node]]\ncpu = 4\nmemory = 8", "nodes: unknown key; allowed: node"),
    ],
)
def test_a_wrong_fleet_file_names_the_field(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(FleetRefused) as refused:
        read_fleet(written(tmp_path, text))
    assert said in str(refused.value)


def test_a_fleet_file_names_all_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FleetRefused) as refused:
        read_fleet(written(tmp_path, "[[node]]\ncpu = -4\n[[node]]\ncpu = 1\nmemory = 1\ngpu = -1"))
    assert len(refused.value.reasons) == 3


def test_a_fleet_file_that_is_not_there() -> None:
    with pytest.raises(FleetRefused, match="there is no such file"):
        read_fleet(Path("gone.toml"))


def test_a_job_that_no_node_can_hold_is_named_with_its_line() -> None:
    trace = trace_of("log.csv", [Job(2, 0, 1, 2.0, 1.0), Job(3, 1, 1, 9.0, 1.0), Job(4, 2, 1, 10.0, 1.0)])
    fleet = [SimulatedNode("a", (8000, 4 * GIB, 0, 0), 8)]
    with pytest.raises(TraceRefused) as refused:
        check_holds(trace, fleet)
    assert refused.value.line == 3
    assert "needs cpu 9, memory 1 GiB, which no node can hold" in str(refused.value)
    assert "2 of 3 jobs" in str(refused.value)
