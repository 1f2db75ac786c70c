from __future__ import annotations

import json
import pickle
import threading

import pytest

from cloudai.scheduling.errors import (
    CannotDecide,
    CloudAIError,
    InvalidParameters,
    InvalidRequest,
    Unplaceable,
)

ERRORS = [
    InvalidRequest("cpu", -1, "0 or more"),
    InvalidRequest("cpu", threading.Lock(), "a number"),
    InvalidRequest("memory", 10**5000, "a number"),
    InvalidRequest("family", "lone \ud800 surrogate", "plain text"),
    InvalidParameters(["alpha: missing", "beta: missing"]),
    Unplaceable("no node can ever hold cpu 64"),
    CannotDecide("not_finite"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_survives_pickle_and_the_way_celery_rebuilds_it_from_json(error: CloudAIError) -> None:
    pickled = pickle.loads(pickle.dumps(error))
    rebuilt = type(error)(*json.loads(json.dumps(error.args)))
    for copy in (pickled, rebuilt):
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
        str(copy).encode()


def test_invalid_request_names_field_value_and_what_is_allowed() -> None:
    error = InvalidRequest("gpu", 1.5, "whole devices")
    assert error.args == ("gpu", 1.5, "whole devices")
    assert str(error) == "gpu: 1.5 was given; allowed: whole devices"
    assert isinstance(error, ValueError)
    assert isinstance(error, CloudAIError)


def test_a_long_value_is_cut() -> None:
    assert len(str(InvalidRequest("family", "x" * 10_000, "short"))) < 300


def test_a_value_whose_text_cannot_be_made_is_named_by_its_type() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert InvalidRequest("cpu", Broken(), "a number").given == "<Broken>"


def test_unplaceable_says_what_to_do() -> None:
    assert "unplaceable='wait'" in str(Unplaceable("no node can ever hold cpu 64"))
