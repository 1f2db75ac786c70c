"""The candidate: an application of CloudAI with the task of the reference, which here asks for resources.

Its settings come from the environment.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloudai import CloudAI
from cloudai.bench import trivial_task

app = CloudAI("bench")


@app.task(ignore_result=True, shared=False, resources={"cpu": 0.01, "memory": "8MiB"})
def trivial(total: int) -> None:
    """Hardly anything: what is left is the work of Celery and CloudAI."""
    trivial_task.body(total, app.settings.redis.url)


def submit_bulk(count: int) -> list[str]:
    """Submit many at once, as CloudAI does it; returns their ids."""
    return [result.id for result in trivial.apply_many(((count,), {}) for _ in range(count))]


def forget(ids: Sequence[str]) -> None:
    """Take back what was submitted, so that no node fills up."""
    ledger = app.deployment.ledger
    for task_id in ids:
        ledger.cancel(task_id)
        ledger.settled(task_id)


def outstanding() -> int:
    """Tasks that are not done, the report of their end included."""
    return app.deployment.ledger.totals()["live"]
