"""The search is compiled once before processes of the optimiser are waited for: a minute on a slow machine."""

from __future__ import annotations

import numpy as np
import pytest

from cloudai.scheduling.parameters import GAParams
from cloudai_beat.replay import Environment, Fleet, ReplayParameters, Workload, replay


@pytest.fixture(scope="session", autouse=True)
def compiled_replay() -> None:
    """The machine code is kept on disk, where the control processes of the tests find it."""
    one = np.ones(1)
    workload = Workload.of(one, one, 9 * one, np.zeros(1, int), cpu_milli=np.full(1, 1000))
    fleet = Fleet.of(np.full(1, 2000))
    replay(workload, fleet, Environment.plain(workload, fleet), ReplayParameters.of(GAParams(), fleet))
