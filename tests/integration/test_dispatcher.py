"""Who gets capacity that comes free, with a long queue: against a real Redis, without workers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from cloudai import CloudAI, dispatcher
from cloudai.dispatcher import LONG_QUEUE
from cloudai.fleet_view import MAX_AGE_S
from cloudai.names import node_queue
from cloudai.state.attempts import Claim, Report

from .without_workers import end, join, make_app

#: What each of the tasks is expected to run, s.
TAU_S = 100.0


@pytest.fixture
def app(redis_url: str) -> Iterator[CloudAI]:
    made = make_app(redis_url)
    made.deployment.tau.set("cpu-light", TAU_S)
    yield made
    end(made)


@pytest.fixture
def work(app: CloudAI) -> Any:
    @app.task(name="work", resources={"cpu": 1, "memory": "8MiB"}, task_type="cpu-light", shared=False)
    def work() -> None:
        """Never runs: there are no workers."""

    return work


def submit(work: Any, *deadlines_s: float) -> list[str]:
    return [work.apply_async(deadline=timedelta(seconds=seconds)).id for seconds in deadlines_s]


def placed(app: CloudAI, tasks: list[str]) -> list[str]:
    return [task_id for task_id in tasks if app.deployment.ledger.entry(task_id)["state"] == "placed"]


def test_those_who_cannot_make_it_do_not_hide_those_behind_them_who_can(app: CloudAI, work: Any) -> None:
    hopeless = submit(work, *range(20, 60))
    others = submit(work, *range(1000, 1040))
    join(app, "n1", slots=3)
    assert app.deployment.dispatcher.run() == 3
    assert placed(app, hopeless) == []
    assert len(placed(app, others)) == 3


def test_a_long_queue_is_served_by_deadline(app: CloudAI, work: Any) -> None:
    tasks = submit(work, *range(1000, 1060))
    join(app, "n1", slots=25)
    assert app.deployment.dispatcher.run() == 25
    assert placed(app, tasks) == tasks[:25]


def test_who_cannot_make_it_has_what_nobody_else_needs(app: CloudAI, work: Any) -> None:
    hopeless = submit(work, *range(20, 60))
    others = submit(work, *range(1000, 1010))
    join(app, "n1", slots=30)
    assert app.deployment.dispatcher.run() == 30
    assert placed(app, others) == others
    assert placed(app, hopeless) == hopeless[:20]


def claim(app: CloudAI, node: str) -> Claim:
    (task_id,) = app.deployment.client.rpop(node_queue(node), 1)
    found = app.deployment.ledger.claim(task_id.decode(), node, "1")
    assert found is not None
    return found


def test_a_report_reads_the_fleet_only_where_somebody_waits(
    app: CloudAI, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(app, "n1", slots=1)
    deployment = app.deployment
    submit(work, 1000)
    held = claim(app, "n1")
    looks: list[int] = []
    refresh = deployment.fleet.refresh
    monkeypatch.setattr(deployment.fleet, "refresh", lambda *args: looks.append(args[0]) or refresh(*args))

    def end(held: Claim) -> None:
        deployment.view.expire()
        report = Report(held.task_id, held.attempt, "succeeded", 1.0, "", 0.0, {})
        finishes, found = deployment.dispatcher.end([report], "n1", [held])
        assert finishes[0].status == "finished"
        if found is not None:
            deployment.dispatcher.run(found)

    end(held)
    assert looks == []
    first, second = submit(work, 1000, 2000)
    held = claim(app, "n1")
    assert held.task_id == first
    looks.clear()
    end(held)
    assert looks
    assert placed(app, [second]) == [second]


@pytest.mark.parametrize(("queue", "looks"), [(10, 3), (LONG_QUEUE, 2)])
def test_submissions_to_a_long_queue_look_at_it_now_and_then(
    app: CloudAI, work: Any, monkeypatch: pytest.MonkeyPatch, queue: int, looks: int
) -> None:
    submit(work, *[1000] * queue)
    deployment, clock = app.deployment, SimpleNamespace(now=500.0)
    monkeypatch.setattr(dispatcher, "time", SimpleNamespace(monotonic=lambda: clock.now))
    seen: list[int] = []
    look = deployment.ledger.waiting

    def counted(*args: Any, **options: Any) -> Any:
        seen.append(1)
        return look(*args, **options)

    monkeypatch.setattr(deployment.ledger, "waiting", counted)
    deployment.dispatcher.follow_submission()
    deployment.dispatcher.follow_submission()
    clock.now += MAX_AGE_S
    deployment.dispatcher.follow_submission()
    assert len(seen) == looks
