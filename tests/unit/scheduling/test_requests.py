from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.requests import RequestDefaults, Resources, TaskRequest, parse_request
from cloudai.scheduling.task_types import TaskType

NOW = 1_700_000_000.0
DEFAULTS = RequestDefaults()


def parse(resources: Any = None, **options: Any) -> TaskRequest:
    return parse_request(resources, now=NOW, defaults=options.pop("defaults", DEFAULTS), **options)


def test_amounts_become_integers() -> None:
    request = parse({"cpu": 2.5, "memory": "4GiB", "gpu": 1, "storage": "1.5G"})
    assert request.resources == Resources(2500, 4 << 20, 1000, 3 << 19)
    assert (request.resources.cpu, request.resources.memory) == (2.5, 4.0)
    assert (request.resources.gpu, request.resources.storage) == (1.0, 1.5)


def test_defaults_are_reserved_but_inference_sees_only_what_was_asked() -> None:
    defaults = RequestDefaults(cpu=6, memory=16)
    request = parse({"gpu": 0, "cpu": None}, defaults=defaults)
    assert request.resources == Resources(6000, 16 << 20)
    assert request.task_type is TaskType.MIXED
    assert not request.explicit_type
    assert parse(None).resources == Resources(1000, 1 << 19)


def test_an_explicit_type_is_kept() -> None:
    request = parse({"gpu": 4, "cpu": 8}, task_type="cpu-light")
    assert request.task_type == "cpu-light"
    assert request.explicit_type
    assert parse({"gpu": 4, "cpu": 8}).task_type == "gpu-training"


def test_resources_as_a_value_mean_the_same_as_a_mapping() -> None:
    assert parse(Resources(gpu_milli=500)) == parse({"gpu": 0.5})
    with pytest.raises(InvalidRequest, match="cpu_milli"):
        parse(Resources(cpu_milli=1.5))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cpu", "memory", "gpu", "storage"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "lots", 1e6 + 1, True, [1], {}, 10**400])
def test_amounts_that_are_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse({name: value})
    assert refused.value.field == name
    assert refused.value.allowed


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        ({"cpu": 0}, "cpu"),
        ({"cpu": -0.0}, "cpu"),
        ({"memory": 0}, "memory"),
        ({"memory": "5.9MiB"}, "memory"),
        ({"gpu": 1.5}, "gpu"),
        ({"cpus": 1}, "resources"),
        ({1: 1}, "resources"),
        ([("cpu", 1)], "resources"),
        ("cpu=1", "resources"),
    ],
)
def test_resources_that_are_refused(resources: object, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(resources)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("task_type", "gpu"),
        ("task_type", ["mixed"]),
        ("sla_multiplier", 3),
        ("sla_multiplier", "2"),
        ("family", ""),
        ("family", "x" * 65),
        ("family", "a\nb"),
        ("family", " "),
        ("family", "\ud800"),
        ("user_id", 7),
        ("target_worker_id", ["n1"]),
        ("target_worker_id", "x" * 256),
        ("constraints", {"zone": 1}),
        ("constraints", {1: "x"}),
        ("constraints", {"zone": ["x"]}),
        ("constraints", ["zone"]),
        ("constraints", {str(number): "x" for number in range(33)}),
        ("unplaceable", "maybe"),
        ("unplaceable", False),
        ("deadline", datetime(2100, 1, 1)),
        ("deadline", datetime.fromtimestamp(NOW, UTC)),
        ("deadline", datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))),
        ("deadline", timedelta(0)),
        ("deadline", timedelta(seconds=-1)),
        ("deadline", NOW + 10),
        ("deadline", "tomorrow"),
    ],
)
def test_options_that_are_refused(option: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse({"cpu": 1}, **{option: value})
    assert refused.value.field.startswith(option)


def test_deadlines_are_a_moment_or_a_time_from_now() -> None:
    assert parse(deadline=timedelta(seconds=30)).deadline == NOW + 30
    moment = datetime.fromtimestamp(NOW + 60, timezone(timedelta(hours=-5)))
    assert parse(deadline=moment).deadline == NOW + 60
    assert parse().deadline is None


def test_a_cached_request_does_not_let_equal_values_of_another_type_through() -> None:
    parse({"cpu": 1}, sla_multiplier=2)
    with pytest.raises(InvalidRequest):
        parse({"cpu": True}, sla_multiplier=2)
    assert parse({"cpu": 1.0}) == parse({"cpu": 1})


def test_shape_is_equal_exactly_when_placement_cannot_tell_tasks_apart() -> None:
    plain = parse({"cpu": 1})
    same = parse(
        {"cpu": 1.0}, user_id="u", deadline=timedelta(seconds=9), sla_multiplier=2, unplaceable="reject"
    )
    assert same.shape == plain.shape
    others = [
        parse({"cpu": 2}),
        parse({"cpu": 1, "gpu": 0}, task_type="mixed"),
        parse({"cpu": 1}, family="f"),
        parse({"cpu": 1}, target_worker_id="f"),
        parse({"cpu": 1}, constraints={"a": "b"}),
        parse({"cpu": 1}, constraints={"a": "b", "c": "d"}),
    ]
    shapes = {request.shape for request in [plain, *others]}
    assert len(shapes) == 7
    assert all(len(shape) <= 90 and shape.isascii() for shape in shapes)


def test_constraints_are_sorted() -> None:
    first = parse(constraints={"zone": "x", "gpu": "y"})
    assert first == parse(constraints={"gpu": "y", "zone": "x"})
    assert first.constraints == (("gpu", "y"), ("zone", "x"))


def test_the_header_leaves_defaults_out() -> None:
    assert parse({"cpu": 1, "memory": 1}).to_header() == {
        "cpu_milli": 1000,
        "memory_kib": 1 << 20,
        "task_type": "cpu-light",
    }


@given(st.from_type(TaskRequest))
def test_header_round_trip(request_: TaskRequest) -> None:
    header = json.loads(json.dumps(request_.to_header()))
    again = TaskRequest.from_header(header)
    assert again == request_
    assert again.shape == request_.shape


def test_a_header_without_anything_is_a_request_for_the_shipped_defaults() -> None:
    assert TaskRequest.from_header({}) == parse(None)
    assert TaskRequest.from_header({"memory_kib": 9 << 20, "from_the_future": 1}).task_type == "memory-heavy"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    [*TaskRequest.__dataclass_fields__, "cpu_milli", "memory_kib", "gpu_milli", "storage_kib"]
)


@given(st.from_type(TaskRequest), st.dictionaries(KEYS, JSON, max_size=3) | JSON)
def test_junk_in_a_header_is_refused_as_an_invalid_request_or_read(request_: TaskRequest, junk: Any) -> None:
    header = {**request_.to_header(), **junk} if isinstance(junk, dict) else junk
    try:
        read = TaskRequest.from_header(header)
    except InvalidRequest:
        return
    assert TaskRequest.from_header(read.to_header()) == read


@given(
    st.dictionaries(st.sampled_from(["cpu", "memory", "gpu", "storage", "x"]), JSON),
    st.dictionaries(KEYS, JSON),
)
def test_junk_in_a_submission_is_refused_as_an_invalid_request_or_read(resources: Any, options: Any) -> None:
    allowed = {
        "task_type",
        "sla_multiplier",
        "family",
        "user_id",
        "target_worker_id",
        "constraints",
        "unplaceable",
    }
    chosen = {name: value for name, value in options.items() if name in allowed}
    try:
        request = parse(resources, **chosen)
    except InvalidRequest:
        return
    assert TaskRequest.from_header(request.to_header()) == request
