from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.scheduling.errors import InvalidParameters
from cloudai.scheduling.parameters import GAParams, differences


def text_with(**changes: Any) -> str:
    return json.dumps(json.loads(GAParams().to_json()) | changes)


def test_defaults() -> None:
    p = GAParams()
    assert (p.theta1, p.theta2, p.theta3, p.theta4) == (0.1, 0.1, 0.3, 0.2)
    assert (p.alpha, p.beta) == (10, 1)
    assert p.a2 > p.a1 > p.a3
    assert p.g1 > p.g2 > p.g3
    assert [dict(p.affinity), dict(p.penalty), dict(p.speed), dict(p.base)] == [{}] * 4


@given(st.from_type(GAParams))
def test_json_round_trip(parameters: GAParams) -> None:
    text = parameters.to_json()
    assert GAParams.from_json(text) == parameters
    assert GAParams.from_json(text).to_json() == text


@given(st.from_type(GAParams), st.data())
def test_a_half_written_file_is_refused(parameters: GAParams, data: st.DataObject) -> None:
    text = parameters.to_json().rstrip()
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(InvalidParameters):
        GAParams.from_json(text[:cut])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not readable as JSON"),
        ("[]", "one object is allowed"),
        ("[" * 100_000, "not readable as JSON"),
        ("{}", "schema: None"),
        (text_with(schema=2), "schema: 2 was given; allowed: 1"),
        (text_with(schema=True), "schema: True"),
        (text_with(alpha=float("nan")), "alpha: nan"),
        (text_with(alpha=float("inf")), "alpha: inf"),
        (text_with(alpha=-1), "alpha: -1 was given; allowed: a number from 0 to"),
        (text_with(alpha=10**400), "alpha"),
        (text_with(alpha=True), "alpha: True"),
        (text_with(alpha="10"), "alpha: '10'"),
        (text_with(alpah=1), "'alpah': unknown key"),
        (text_with(version=-1), "version: -1"),
        (text_with(version=1.0), "version: 1.0"),
        (text_with(affinity={"cpu-light": {"n": 5.1}}), "affinity[cpu-light][n]: 5.1"),
        (text_with(affinity={"gpu": {}}), "affinity: the type 'gpu' was given; allowed: cpu-light"),
        (text_with(affinity={"mixed": 1}), "affinity[mixed]: 1"),
        (text_with(affinity=[]), "affinity: []"),
        (text_with(penalty={"n": -0.1}), "penalty[n]: -0.1"),
        (text_with(penalty={"": 1}), "penalty: the key ''"),
        (text_with(speed={"mixed": {"n": 0}}), "speed[mixed][n]: 0"),
        (text_with(base={"mixed": None}), "base[mixed]: None"),
        (text_with(base={"dl": 1}), "base: the type 'dl'"),
        ('{"schema": 1, "schema": 1}', "twice"),
        ('{"w_deadline": 1.0, "w_load": 2.0}', "old flat schema"),
    ],
)
def test_refusals_say_why(text: str, reason: str) -> None:
    with pytest.raises(InvalidParameters) as refused:
        GAParams.from_json(text)
    assert reason in str(refused.value)


def test_every_reason_is_given_at_once() -> None:
    values = json.loads(text_with(alpha=-1, beta="x", penalty={"n": -1}, extra=1))
    del values["theta1"]
    with pytest.raises(InvalidParameters) as refused:
        GAParams.from_json(json.dumps(values))
    assert len(refused.value.reasons) == 5


def test_a_value_made_in_code_is_checked_too() -> None:
    with pytest.raises(InvalidParameters, match="theta1"):
        GAParams(theta1=-1)


def test_tables_cannot_be_changed() -> None:
    given = {"n": 1.0}
    parameters = GAParams(penalty=given)
    given["n"] = 2.0
    assert parameters.penalty["n"] == 1.0
    with pytest.raises(TypeError):
        parameters.penalty["n"] = 3.0  # type: ignore[index]


def test_differences_are_lines_for_people() -> None:
    old = GAParams(affinity={"mixed": {"n1": 1.5}}, penalty={"n1": 1})
    new = GAParams(alpha=12, affinity={"mixed": {"n1": 2}}, speed={"mixed": {"n2": 0.5}}, version=7)
    assert differences(old, new) == [
        "affinity[mixed][n1]: 1.5 -> 2",
        "alpha: 10 -> 12",
        "penalty[n1]: 1 -> none",
        "speed[mixed][n2]: none -> 0.5",
    ]
    assert differences(old, new, limit=1) == ["affinity[mixed][n1]: 1.5 -> 2", "and 3 more"]
    assert differences(new, new) == []


def test_a_file_of_before_the_dispatch_orders_weights_still_loads() -> None:
    values = json.loads(GAParams(order_margin=2.0).to_json())
    for name in ("order_margin", "order_runtime", "order_lateness", "order_caution", "order_safety"):
        del values[name]
    assert GAParams.from_json(json.dumps(values)) == GAParams()


def test_the_dispatch_orders_weights_are_checked_and_compared() -> None:
    with pytest.raises(InvalidParameters, match=r"order_lateness: 2\.0 was given; allowed: a number from 0 to 1"):
        GAParams(order_lateness=2.0)
    assert differences(GAParams(), GAParams(order_runtime=0.5)) == ["order_runtime: 0 -> 0.5"]
