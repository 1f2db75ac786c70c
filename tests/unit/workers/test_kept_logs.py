"""What goes from the folder of outputs, and what stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudai_workers.runners.kept_logs import KeptLogs

NOW = 1_700_000_000.0
DAY = 86_400.0


def write(logs: KeptLogs, task_id: str, attempt: int, age_days: float, size: int = 8192) -> None:
    for path in logs.files(task_id, attempt):
        path.write_bytes(b"x" * size)
        os.utime(path, (NOW - age_days * DAY,) * 2)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_old_ones_go(tmp_path: Path) -> None:
    logs = KeptLogs(tmp_path, keep_days=7)
    write(logs, "old", 1, 8)
    write(logs, "new", 1, 6)
    (tmp_path / "not-ours.out").touch()
    os.utime(tmp_path / "not-ours.out", (0, 0))
    assert logs.prune(NOW) == 2
    assert names(tmp_path) == ["cloudai-new-1.err", "cloudai-new-1.out", "not-ours.out"]


def test_the_oldest_go_when_they_are_too_many(tmp_path: Path) -> None:
    logs = KeptLogs(tmp_path, keep_bytes=2 * 16384)
    for age, task_id in enumerate(("a", "b", "c", "d")):
        write(logs, task_id, 1, age)
    logs.prune(NOW)
    assert names(tmp_path) == ["cloudai-a-1.err", "cloudai-a-1.out", "cloudai-b-1.err", "cloudai-b-1.out"]


def test_the_latest_attempt_is_read_whichever_is_written_last(tmp_path: Path) -> None:
    logs = KeptLogs(tmp_path / "made")
    for attempt in (2, 10, 9):
        out, err = logs.files("t", attempt)
        out.write_text(f"out {attempt} ")
        err.write_text(f"err {attempt}")
    assert b"".join(logs.read("t")) == b"out 10 err 10"
    err.with_name("cloudai-t-10.err").unlink()
    assert b"".join(logs.read("t")) == b"out 10 "
    with pytest.raises(LookupError, match="other"):
        logs.read("other")


def test_a_task_whose_id_begins_alike_is_another_one(tmp_path: Path) -> None:
    logs = KeptLogs(tmp_path)
    for path in logs.files("t-1", 1):
        path.write_text("other")
    with pytest.raises(LookupError):
        logs.read("t")
