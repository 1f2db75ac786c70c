"""A short scale run: some dozens of nodes, hundreds of tasks, a tenth of the nodes lost; the rest is `make scale`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..campaign_run import short_run
from .verdict import ZEROS


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_doubled_or_left_in_a_short_run(tmp_path: Path) -> None:
    found, report = short_run("tests.scale", tmp_path, 540)
    assert {name: found[name] for name in ZEROS} == dict.fromkeys(ZEROS, 0), report
    assert found["accepted"] >= 600, report
    assert {"succeeded", "cancelled"} <= found["ends"].keys(), report
    assert found["silent"] > 0, report
    assert found["looks"] > 0, report
