"""What the control process says of work that goes wrong again and again."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from cloudai_beat import control
from cloudai_beat.control import Keeper


def test_what_stays_wrong_is_said_once_while_other_work_goes_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked = threading.Semaphore(0)

    class Recorder:
        def record_once(self) -> None:
            pass

    class File:
        def look(self) -> None:
            looked.release()
            raise PermissionError("the folder is not ours")

    monkeypatch.setattr(control, "load_library", lambda: None)
    monkeypatch.setattr(control, "RECORD_EVERY_S", 0.01)
    monkeypatch.setattr(control, "LOOK_EVERY_S", 0.02)
    parts: Any = Recorder(), File()
    deployment: Any = None
    keeper = Keeper(deployment, *parts)
    with caplog.at_level(logging.ERROR, control.__name__):
        keeper.start()
        assert all(looked.acquire(timeout=60) for _ in range(3))
        keeper.stop()
    (said,) = [record.getMessage() for record in caplog.records if record.name == control.__name__]
    assert "the folder is not ours" in said
