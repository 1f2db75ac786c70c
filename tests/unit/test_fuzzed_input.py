"""What comes from outside is taken or refused by name, whatever it is: headers, frames, parameters."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudai import transport
from cloudai.request_header import read_header
from cloudai.scheduling.errors import InvalidParameters, InvalidRequest
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.requests import TaskRequest

from ..poison import message

SMALL = settings(
    max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "cpu_milli", "memory_kib", "gpu_milli", "storage_kib", "task_type", "explicit_type", "deadline", "sla_multiplier",
    "family", "user_id", "target_worker_id", "constraints", "unplaceable", "limit_s",
)  # fmt: skip
requests = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), values, max_size=6)


@SMALL
@given(values | st.fixed_dictionaries({}, optional={"v": values, "req": values | requests, "deadline": values}))
def test_headers(header: Any) -> None:
    try:
        request, deadline = read_header(header)
    except InvalidRequest as error:
        refused = error
    else:
        assert deadline is None or isinstance(deadline, (int, float))
        assert request.resources.cpu_milli > 0
        return
    assert refused.field
    assert refused.allowed


@SMALL
@given(requests)
def test_requests_survive_the_way_through_a_header(fields: dict[str, Any]) -> None:
    try:
        request = TaskRequest.from_header(fields)
    except InvalidRequest:
        return
    again = TaskRequest.from_header(json.loads(json.dumps(request.to_header())))
    assert again == request
    assert again.shape == request.shape


class Channel(transport.Channel):
    """A channel of no connection that notes what it would deliver."""

    def __init__(self) -> None:
        self.delivered: list[Any] = []
        self.buried: list[str] = []
        self.connection = SimpleNamespace(_deliver=lambda payload, queue: self.delivered.append(payload))
        self.cloudai_deployment = None
        self.body_encoding = "base64"

    def _bury(self, queue: str, frame: bytes, reason: str) -> None:
        self.buried.append(reason)


def _changed(change: tuple[str, Any, bool]) -> bytes:
    """A message of a stock producer with one of its values changed."""
    path, value, drop = change
    sent = message("jobs.add", 1, 1)
    place, _, name = path.rpartition(".")
    target: dict[str, Any] = sent
    for step in filter(None, place.split(".")):
        target = target[step]
    if drop:
        target.pop(name, None)
    else:
        target[name] = value
    return json.dumps(sent).encode()


PLACES = (
    "body", "content-type", "content-encoding", "headers", "headers.id", "headers.task", "headers.cloudai",
    "properties", "properties.delivery_info", "properties.delivery_tag", "properties.body_encoding",
    "properties.correlation_id", "properties.delivery_info.routing_key", "properties.priority",
)  # fmt: skip
frames = (
    st.binary(max_size=60)
    | values.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.sampled_from(PLACES), values, st.booleans()).map(_changed)
    | st.tuples(st.binary(max_size=8), st.integers(0, 400)).map(
        lambda cut: json.dumps(message("jobs.add", 1)).encode()[: cut[1]] + cut[0]
    )
)


@SMALL
@given(frames)
def test_frames_are_delivered_or_buried(frame: bytes) -> None:
    channel = Channel()
    channel._take("one@t.dq2", frame)
    assert len(channel.delivered) + len(channel.buried) == 1
    for payload in channel.delivered:
        assert isinstance(payload["properties"]["delivery_tag"], str)
        base64.b64decode(payload["body"] if payload["properties"].get("body_encoding") == "base64" else "")


DEFAULTS = json.loads(GAParams().to_json())


@SMALL
@given(
    st.text(max_size=40)
    | values.map(json.dumps)
    | st.dictionaries(st.sampled_from(sorted(DEFAULTS)), values, max_size=3).map(
        lambda some: json.dumps({**DEFAULTS, **some})
    )
)
def test_parameters_are_whole_or_refused(text: str) -> None:
    try:
        parameters = GAParams.from_json(text)
    except InvalidParameters as error:
        reasons = error.reasons
    else:
        assert GAParams.from_json(parameters.to_json()) == parameters
        return
    assert reasons
