"""A process of many threads: each may submit, however many there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cloudai import CloudAI

from .without_workers import end, join, make_app

#: More than a redis-py pool has connections by itself.
THREADS = 130


@pytest.fixture
def app(redis_url: str) -> Iterator[CloudAI]:
    made = make_app(redis_url)
    yield made
    end(made)


def test_more_threads_submit_at_once_than_a_pool_has_connections_by_itself(app: CloudAI) -> None:
    @app.task(name="work", resources={"cpu": 0.1, "memory": "8MiB"}, shared=False)
    def work() -> None:
        """Never runs: there are no workers."""

    join(app, "n1")
    work.apply_async()
    everybody = threading.Barrier(THREADS)
    accepted: list[str] = []
    errors: list[BaseException] = []

    def submit() -> None:
        try:
            result: Any = work.apply_async()
            accepted.append(result.id)
        except BaseException as error:
            errors.append(error)
        # A thread keeps its connection while it lives.
        everybody.wait(60)

    threads = [threading.Thread(target=submit) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(accepted)) == THREADS
