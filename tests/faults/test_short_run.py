"""A short campaign: nodes killed and frozen, a machine lost, Redis killed and stopped, the document store away, the
control process killed, poison; the rest is `make faults`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ..campaign_run import short_run
from .verdict import ZEROS


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_in_a_short_campaign(tmp_path: Path) -> None:
    found, report = short_run("tests.faults", tmp_path, 840)
    # Where the machine is so slow that a node seems dead, its Python tasks run on beside their next attempt, as said.
    found["overlapped"] -= found["overlapped_in_threads"]
    assert {name: found[name] for name in ZEROS} == dict.fromkeys(ZEROS, 0), report
    assert found["accepted"] >= 50, report
    assert found["injected"]["kill control"] == 1, report
    assert found["reruns"] > 0, f"nothing was ever taken from a node: the campaign has tested nothing\n{report}"
