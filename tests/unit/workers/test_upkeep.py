"""How often a node asks whether the sweep is its turn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cloudai.state.sweep import ASKING_NODES, ASKS_WITHIN_S, SWEEP_INTERVAL_S, Swept, asks_within_s
from cloudai_workers import upkeep
from cloudai_workers.upkeep import Upkeep


@pytest.mark.parametrize("nodes", [0, 1, ASKING_NODES])
def test_few_nodes_ask_at_every_tick(nodes: int) -> None:
    assert asks_within_s(nodes) == 0.0


def test_of_many_about_as_many_ask_and_each_asks_soon() -> None:
    for nodes in (ASKING_NODES + 1, 16, 30):
        mean_s = asks_within_s(nodes) / 2
        assert nodes * SWEEP_INTERVAL_S / mean_s == pytest.approx(ASKING_NODES)
    assert asks_within_s(10_000) == ASKS_WITHIN_S


def test_a_node_of_many_leaves_the_sweep_to_the_others_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    clock = SimpleNamespace(now=100.0)

    def run() -> Swept:
        asked.append(clock.now)
        return Swept(False, 0, (), (), 0, nodes=1000)

    monkeypatch.setattr(upkeep.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(upkeep.random, "uniform", lambda low, high: high)
    app: Any = SimpleNamespace(deployment=SimpleNamespace(sweep=SimpleNamespace(run=run)))
    node = Upkeep(app, "n1", cast(Any, None), cast(Any, None), cast(Any, None))
    for _ in range(11):
        node.sweep()
        clock.now += SWEEP_INTERVAL_S
    assert asked == [100.0, 100.0 + ASKS_WITHIN_S]
