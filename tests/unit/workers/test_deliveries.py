"""What a node makes of a claim whose end is known already."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from cloudai.state.attempts import Claim
from cloudai_workers import deliveries
from cloudai_workers.deliveries import Deliveries

CLAIM = Claim("t", b"{}", 2, (), waiting_s=0.0, deadline=0.0, cpu_milli=1, memory_kib=1, gpu_milli=0, storage_kib=0)


@pytest.mark.parametrize(("error", "heard"), [(None, True), (LookupError(), True), (RedisConnectionError(), False)])
def test_a_known_end_is_told_once_its_chord_can_be(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, heard: bool
) -> None:
    def tell(*_: Any) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(deliveries, "repeat_chord_part", tell)
    ended: list[str] = []
    dropped: list[tuple[str, int]] = []
    app = SimpleNamespace(backend=SimpleNamespace(connection_errors=(RedisConnectionError,)))
    holding: Any = SimpleNamespace(take=lambda claim: "succeeded", drop=lambda *key: dropped.append(key))
    clerk: Any = SimpleNamespace(ended=lambda task_id, attempt, outcome, reason: ended.append(outcome))
    hooks = Deliveries(app, "i", holding, clerk, gives_back=lambda: False)
    assert not hooks.claimed(CLAIM)
    # What is not told now stays with the ledger, which has it claimed again.
    assert (ended, dropped) == ((["succeeded"], []) if heard else ([], [("t", 2)]))
