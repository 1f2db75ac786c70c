"""The reference: a stock Celery application on kombu's own Redis transport, without anything of CloudAI."""

from __future__ import annotations

import os
from collections.abc import Sequence

import kombu.transport
from celery import Celery, group
from redis import Redis

from cloudai.bench import trivial_task

URL = os.environ["BENCH_URL"]

app = Celery("bench", broker=URL, backend=URL)

#: Measured against itself, CloudAI would always look good.
assert kombu.transport.TRANSPORT_ALIASES["redis"] == "kombu.transport.redis:Transport"


@app.task(ignore_result=True, shared=False)
def trivial(total: int) -> None:
    """Hardly anything: what is left is Celery's own work."""
    trivial_task.body(total, URL)


def submit_bulk(count: int) -> list[str]:
    """Submit many at once, as Celery does it; returns their ids."""
    return [result.id for result in group(trivial.s(count) for _ in range(count)).apply_async()]


def forget(ids: Sequence[str]) -> None:
    """Take back what was submitted."""
    with Redis.from_url(URL) as client:
        client.delete("celery")


def outstanding() -> int:
    """Tasks that are not done, acknowledgement included."""
    with Redis.from_url(URL) as client:
        return int(client.llen("celery")) + int(client.hlen("unacked"))
