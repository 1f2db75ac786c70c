"""What users write on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cloudai.cli import given
from cloudai.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("0.5", 0.5),
        ("90s", 90.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("2d", 172_800.0),
        ("250ms", 0.25),
    ],
)
def test_time_spans(text: str, seconds: float) -> None:
    assert given.span_s(text, "timeout") == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "10 m", "m", "10x", "1h 30m", "1e99", "soon"])
def test_other_spans_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        given.span_s(text, "timeout")
    assert refusal.value.field == "timeout"
    assert refusal.value.given == text


def test_a_deadline_is_a_span_or_a_moment_with_its_zone() -> None:
    assert given.deadline("10m") == timedelta(minutes=10)
    assert given.deadline("2027-01-31T18:00+00:00") == datetime(2027, 1, 31, 18, tzinfo=UTC)
    assert given.deadline(None) is None
    with pytest.raises(InvalidRequest, match="ISO form"):
        given.deadline("2027-01-31T25:00")
    with pytest.raises(InvalidRequest, match="with its time zone"):
        given.deadline("2027-01-31T18:00")
    with pytest.raises(InvalidRequest, match=r"10m.*or a moment in ISO form"):
        given.deadline("tomorrow")


def test_amounts_keep_their_units_and_plain_numbers_become_numbers() -> None:
    assert given.amount("4GiB") == "4GiB"
    assert given.amount("0.5") == 0.5
    assert given.amount(None) is None


def test_pairs() -> None:
    assert given.pairs(["A=1", "B=x=y", "C="], "env") == {"A": "1", "B": "x=y", "C": ""}
    with pytest.raises(InvalidRequest, match="each name once"):
        given.pairs(["A=1", "A=2"], "env")


def test_a_refused_pair_does_not_repeat_what_may_be_a_secret() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        given.pairs(["hunter2"], "env")
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(InvalidRequest, match="'eu-1' was given"):
        given.pairs(["eu-1"], "label", secret=False)


def test_volumes() -> None:
    assert given.volumes(["/data:/in", "/out:/out:rw"]) == {
        "/data": {"bind": "/in", "mode": "ro"},
        "/out": {"bind": "/out", "mode": "rw"},
    }
    for word in ("/data", "/data:", "/a:/b:ro:x"):
        with pytest.raises(InvalidRequest, match="volume"):
            given.volumes([word])
