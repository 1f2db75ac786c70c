"""Quantities as people read them."""

from __future__ import annotations

import pytest

from cloudai.cli.application import masked
from cloudai.cli.output import duration, from_now, number, percent, print_table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"),
        (0.85, "850ms"),
        (4.21, "4.2s"),
        (192, "3m12s"),
        (3599.6, "1h00m"),
        (7500, "2h05m"),
        (273_600, "3d4h"),
        (-30, "-30.0s"),
        (None, "?"),
        (float("nan"), "?"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_moments_as_seen_from_now() -> None:
    assert from_now(110.0, 100.0) == "in 10.0s"
    assert from_now(100.0, 110.0) == "10.0s ago"


def test_numbers_and_shares() -> None:
    assert [number(v) for v in (0.0625, 3.9999, 1234.6, 16.0, None)] == ["0.0625", "4", "1235", "16", "?"]
    assert [percent(v) for v in (None, 0.0, 0.1234)] == ["?", "0.0 %", "12.3 %"]


ROW = ["a" * 36, "running", "no node can take it now: cpu (3 nodes), memory (1 node)"]


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (120, [f"task{' ' * 34}state    why", f"{ROW[0]}  running  {ROW[2]}"]),
        (60, [f"task{' ' * 34}state", "  why", f"{ROW[0]}  running", f"  {ROW[2]}"]),
    ],
)
def test_a_last_column_without_room_goes_below_the_others(
    columns: int, lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(["*task", "*state", "why"], [ROW])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == lines


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://:pw@h/0", "redis://:***@h/0"),
        ("rediss://user:pw@h:1/0", "rediss://user:***@h:1/0"),
        ("sentinel://:a@h1:1;sentinel://:b@h2:2", "sentinel://:***@h1:1;sentinel://:***@h2:2"),
    ],
)
def test_passwords_are_never_shown(url: str, shown: str) -> None:
    assert masked(url) == shown
