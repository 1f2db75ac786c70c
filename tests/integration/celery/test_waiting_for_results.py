"""A result reaches who waits for it, also where its announcement did not."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from cloudai import CloudAI, result_store
from cloudai.settings import RedisSettings, Settings

from ...waiting import until


@pytest.fixture
def app(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudAI]:
    monkeypatch.setattr(result_store, "LOOK_EVERY_S", 0.1)
    app = CloudAI("waits", settings=Settings.load(redis=RedisSettings(url=redis_url)), set_as_current=False)
    yield app
    app.backend.result_consumer.stop()
    app.backend.client.close()
    app.close()


def store_quietly(app: CloudAI, task_id: str, *, cut: bool) -> None:
    """Store a result once its caller waits for it, and announce it to nobody; `cut`: end the caller's connection."""
    backend = app.backend
    key = backend.get_key_for_task(task_id)
    until(lambda: backend.client.pubsub_channels(key), timeout_s=60)
    meta = {"status": "SUCCESS", "result": 7, "traceback": None, "children": [], "task_id": task_id}
    backend.client.set(key, backend.encode(meta), ex=60)
    if cut:
        backend.client.client_kill_filter(_type="pubsub")


@pytest.mark.parametrize("cut", [False, True], ids=["missed", "cut off"])
def test_a_result_that_was_announced_to_nobody_is_found(app: CloudAI, cut: bool) -> None:
    """As when it is stored while the caller's connection is being made again."""
    worker = threading.Thread(target=store_quietly, args=(app, "t1"), kwargs={"cut": cut})
    worker.start()
    assert app.AsyncResult("t1").get(timeout=60) == 7
    worker.join()
