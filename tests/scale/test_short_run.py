"""A short scale run: some dozens of nodes, hundreds of tasks, a tenth of the nodes lost; the rest is `make scale`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .verdict import ZEROS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_doubled_or_left_in_a_short_run(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.scale", "--short", "--json"],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=540,
    )  # fmt: skip
    *shown, last = ran.stdout.splitlines() or [""]
    report = "\n".join([*shown, ran.stderr])
    assert last.startswith("{"), report
    found = json.loads(last)
    assert {name: found[name] for name in ZEROS} == dict.fromkeys(ZEROS, 0), report
    assert found["accepted"] >= 600, report
    assert {"succeeded", "cancelled"} <= found["ends"].keys(), report
    assert found["silent"] > 0, report
    assert found["looks"] > 0, report
