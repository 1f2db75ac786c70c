"""Capacity as the machine and its control groups give it, or as the operator declares it."""

import os

import psutil
import pytest

from cloudai_workers.capacity import (
    InvalidCapacity,
    Telemetry,
    detect_capacity,
    detect_cores,
    detect_memory_bytes,
)
from cloudai_workers.runners.cgroups import JobGroup, read_usage


def test_detection_stays_within_the_machine(tmp_path):
    capacity = detect_capacity(tmp_path / "not" / "yet" / "made")
    assert 0 < capacity.cpu_milli <= 1000 * (os.cpu_count() or 1)
    assert 0 < capacity.memory_kib <= psutil.virtual_memory().total // 1024
    assert capacity.storage_kib > 0
    assert capacity.slots >= 1


def test_what_is_declared_counts(tmp_path):
    capacity = detect_capacity(tmp_path, cpu=2.5, memory_gib=4, storage_gib=10, gpus=("0", "1"), slots=7)
    assert capacity.cpu_milli == 2500
    assert capacity.memory_kib == 4 * 2**20
    assert capacity.storage_kib == 10 * 2**20
    assert capacity.gpus == ("0", "1")
    assert capacity.slots == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu", 0),
        ("cpu", -1),
        ("cpu", float("nan")),
        ("cpu", 2e6),
        ("memory_gib", 0.001),
        ("storage_gib", float("inf")),
        ("gpus", ("0", "0")),
        ("gpus", ("",)),
        ("slots", -1),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_by_name(tmp_path, name, value):
    with pytest.raises(InvalidCapacity, match=f"^{name.removesuffix('_gib')}: "):
        detect_capacity(tmp_path, **{name: value})


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


# Version 2 cannot be mounted beside version 1 on one machine, so its files are laid out by hand here.
def test_version_2_limits_hold_from_any_level(tmp_path):
    write(tmp_path, cgroup__controllers="cpu memory")
    write(tmp_path / "slice", cpu__max="50000 100000\n", memory__max="max\n")
    write(tmp_path / "slice" / "unit", cpu__max="max 100000\n", memory__max="104857600\n")
    groups = {"": "/slice/unit"}
    assert detect_cores(tmp_path, groups) == 0.5
    assert detect_memory_bytes(tmp_path, groups) == 104857600


def test_version_1_limits_hold_and_no_limit_is_none(tmp_path):
    write(tmp_path / "cpu" / "a", cpu__cfs_quota_us="25000\n", cpu__cfs_period_us="100000\n")
    write(tmp_path / "cpu" / "a" / "b", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    write(tmp_path / "memory" / "a", memory__limit_in_bytes="9223372036854771712\n")
    assert detect_cores(tmp_path, {"cpu": "/a/b"}) == 0.25
    assert detect_memory_bytes(tmp_path, {"memory": "/a"}) == psutil.virtual_memory().total


def test_usage_of_version_2_groups_is_read(tmp_path):
    write(tmp_path, cgroup__controllers="cpu memory")
    write(tmp_path / "g", cpu__stat="usage_usec 1500000\nuser_usec 1\n", memory__peak="4096\n")
    used = read_usage("/g", tmp_path)
    assert (used.cpu_seconds, used.peak_memory) == (1.5, 4096)
    assert read_usage("/absent", tmp_path).peak_memory is None


def test_version_2_group_says_which_limits_are_in_force(tmp_path):
    write(tmp_path, cgroup__controllers="cpu memory pids")
    group = JobGroup("job", tmp_path)
    assert group.create(cpu_milli=1500, memory_bytes=1 << 26, pids=10) == {"cpu", "memory", "pids"}
    assert (tmp_path / "cloudai" / "job" / "cpu.max").read_text() == "150000 100000"


def test_telemetry_of_this_machine():
    sample = Telemetry().sample()
    assert 0 <= sample.cpu_use <= 1
    assert 0 < sample.memory_use < 1
    assert sample.pressure == max(sample.cpu_pressure, sample.memory_use, sample.gpu_use)
