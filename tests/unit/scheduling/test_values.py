"""Task types, units and deadlines."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.scheduling.deadlines import sla_seconds, validate_multiplier
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.task_types import INITIAL_TAU, TASK_TYPES, infer_task_type, validate_task_type
from cloudai.scheduling.units import parse_gib, parse_number, to_kib, to_milli


@pytest.mark.parametrize(
    ("cpu", "memory", "gpu", "kind"),
    [
        (4.1, 0, 2.1, "gpu-training"),
        (4, 0, 3, "gpu-inference"),
        (8, 0, 2, "gpu-inference"),
        (0, 64, 0.1, "gpu-inference"),
        (16, 8.1, 0, "memory-heavy"),
        (4.1, 8, 0, "cpu-heavy"),
        (4, 8, 0, "cpu-light"),
        (0, 8, 0, "mixed"),
        (0, 0, 0, "mixed"),
    ],
)
def test_inference_takes_the_first_rule_that_holds(cpu: float, memory: float, gpu: float, kind: str) -> None:
    assert infer_task_type(cpu, memory, gpu) == kind


def test_six_types_with_their_starting_tau() -> None:
    assert {str(kind): INITIAL_TAU[kind] for kind in TASK_TYPES} == {
        "cpu-light": 5,
        "cpu-heavy": 15,
        "memory-heavy": 20,
        "gpu-inference": 10,
        "gpu-training": 60,
        "mixed": 10,
    }


@pytest.mark.parametrize("given", ["gpu", "CPU-LIGHT", "", None, 3, ["mixed"]])
def test_an_unknown_type_is_refused_with_the_six(given: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        validate_task_type(given)
    assert all(kind in str(refused.value) for kind in TASK_TYPES)


@pytest.mark.parametrize(
    ("given", "gib"),
    [
        ("512MiB", 0.5),
        ("4GiB", 4),
        ("1.5G", 1.5),
        ("1.5g", 1.5),
        (" 2 Gi ", 2),
        ("1TiB", 1024),
        ("1048576KiB", 1),
        ("1073741824B", 1),
        ("1GB", 1e9 / 2**30),
        (3, 3),
        (0.25, 0.25),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (Fraction(1, 4), 0.25),
    ],
)
def test_sizes(given: object, gib: float) -> None:
    assert parse_gib(given, "memory") == gib


JUNK = [True, math.nan, math.inf, -math.inf, -1, 1e6 + 1, 10**400, None, [], b"4GiB", 1j]


@pytest.mark.parametrize(
    "given", [*JUNK, "", "GiB", "4", "-4GiB", "4 gibibytes", "1e3GiB", "nanGiB", "٤GiB", "9" * 30 + "T"]
)
def test_sizes_that_are_refused(given: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_gib(given, "storage")
    assert refused.value.field == "storage"


@pytest.mark.parametrize("given", [*JUNK, "4", "four"])
def test_numbers_that_are_refused(given: object) -> None:
    with pytest.raises(InvalidRequest):
        parse_number(given, "cpu")


@given(st.text(max_size=12) | st.floats() | st.integers() | st.binary() | st.none() | st.booleans())
def test_any_size_is_read_or_refused(given: object) -> None:
    try:
        gib = parse_gib(given, "memory")
    except InvalidRequest:
        return
    assert 0 <= gib <= 1e6


@given(st.integers(0, 10**9))
def test_thousandths_are_exact_in_both_directions(milli: int) -> None:
    assert to_milli(milli / 1000) == milli


@given(st.integers(0, 10**6 << 20))
def test_kib_are_exact_in_both_directions(kib: int) -> None:
    assert to_kib(kib / 2**20) == kib


def test_amounts_are_rounded_up_and_never_to_nothing() -> None:
    assert to_milli(0.0001) == 1
    assert to_milli(1e-300) == 1
    assert to_milli(1.0005) == 1001
    assert to_kib(1e-9) == 1
    assert to_milli(0) == to_kib(0) == 0


def test_a_task_has_k_tau() -> None:
    assert sla_seconds(2.0, 15.0) == 30.0


@pytest.mark.parametrize("k", [1.5, 2, 2.5, np.float64(2.1)])
def test_multipliers_in_range(k: float) -> None:
    assert validate_multiplier(k) == k


@pytest.mark.parametrize("k", [1.49, 2.51, math.nan, math.inf, True, "2", None])
def test_multipliers_out_of_range_are_refused_by_name(k: object) -> None:
    with pytest.raises(InvalidRequest, match=r"SCHED_SLA_MULTIPLIER.*1\.5 to 2\.5"):
        validate_multiplier(k, "SCHED_SLA_MULTIPLIER")
