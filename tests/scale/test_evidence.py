"""The run's own instruments: what is planted in its evidence shows in the verdict, and a plan follows from its seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from cloudai import CloudAI
from cloudai.names import node_queue

from ..faults.audit import Audit
from ..integration.without_workers import end, join, make_app
from .campaign import Evidence
from .measure import dispatch_lags
from .observer import Event, Passed
from .plan import draw_fleet, draw_jobs, draw_loss, full_plan, short_plan
from .verdict import ZEROS, judge


def event(kind: str, task_id: str, at: float, **more: Any) -> Event:
    return Event(kind, task_id, at, more.get("node", "n1"), "1", more.get("outcome", ""), "outcome" in more, "")


def evidence() -> Evidence:
    """Of two tasks that ran as they should, the second on two nodes in turn."""
    found = Evidence(short_plan(1, 60, 500))
    found.kinds = {"a": "usual", "b": "usual", "c": "expires"}
    found.events = [
        event("finished", "a", 1.0, outcome="succeeded"),
        event("finished", "b", 2.0, outcome="succeeded"),
        event("finished", "c", 2.0, outcome="expired"),
    ]
    found.completed = ["a", "b"]
    found.runs = [
        ["a", 1, "n1", [(0.0, 1.0)], True],
        ["b", 1, "n1", [(0.0, 1.0)], False],
        ["b", 2, "n2", [(1.0, 2.0)], True],
    ]
    return found


def test_a_run_in_order_is_judged_so() -> None:
    assert judge(evidence()).broken == []


def twice_in_the_stream(found: Evidence) -> None:
    found.events.append(event("finished", "a", 3.0, outcome="succeeded"))


def twice_by_the_nodes(found: Evidence) -> None:
    found.completed.append("a")


def at_once(found: Evidence) -> None:
    found.runs[2][3] = [(0.5, 1.5)]


def never_heard_of(found: Evidence) -> None:
    found.kinds["d"] = "usual"


def given_up(found: Evidence) -> None:
    found.events[0] = event("finished", "a", 1.0, outcome="lost")


def ended_otherwise(found: Evidence) -> None:
    found.events[0] = event("finished", "a", 1.0, outcome="expired")


def still_counted(found: Evidence) -> None:
    found.unfinished = {"live": 1}


def not_settled(found: Evidence) -> None:
    found.unsettled = 1


def leaked(found: Evidence) -> None:
    found.leaks.append("n1: cpu: 2000 given away, 1000 held by tasks")


def given_away_twice(found: Evidence) -> None:
    found.max_overcommit = 0.1


def left(found: Evidence) -> None:
    found.keys.append("{cloudai}:task:a: its TTL is over, or it has none")


def grown(found: Evidence) -> None:
    found.growth = 3 << 20


def not_trimmed(found: Evidence) -> None:
    found.stream_length = 10_000


def passed_over(found: Evidence) -> None:
    found.passed["a"] = Passed(0.0, 31.0, "n2", "{}")


def refused(found: Evidence) -> None:
    found.refused.append("ClusterFull: 3 tasks")


@pytest.mark.parametrize(
    ("plant", "count"),
    [
        (twice_in_the_stream, "completed_twice"), (twice_by_the_nodes, "completed_twice"), (at_once, "overlapped"),
        (never_heard_of, "lost"), (given_up, "lost"), (ended_otherwise, "wrong_end"), (still_counted, "unfinished"),
        (not_settled, "unsettled"), (leaked, "leaks"), (given_away_twice, "overcommitted"), (left, "keys_left"),
        (grown, "grown"), (not_trimmed, "stream_untrimmed"), (passed_over, "passed_over"), (refused, "refused"),
    ],
)  # fmt: skip
def test_a_planted_defect_shows(plant: Callable[[Evidence], None], count: str) -> None:
    found = evidence()
    plant(found)
    assert {name for name in ZEROS if getattr(judge(found), name)} == {count}
    assert judge(found).broken


def test_every_count_has_a_defect_that_shows_it() -> None:
    marks = next(m for m in test_a_planted_defect_shows.pytestmark if m.name == "parametrize")
    assert {count for _, count in marks.args[1]} == set(ZEROS)


def test_a_reservation_that_no_task_explains_is_seen(redis_url: str) -> None:
    app: CloudAI = make_app(redis_url)
    try:

        @app.task(name="work", resources={"cpu": 1, "memory": "8MiB", "gpu": 0}, shared=False)
        def work() -> None:
            """Never runs: there are no workers."""

        join(app, "n1", cpu=4000)
        work.apply_async()
        audit, keys = Audit(app.deployment), app.deployment.keys
        with redis.Redis.from_url(redis_url) as client:
            audit.look(client)
            assert audit.leaks == {}
            client.hincrby(keys.node("n1"), "cpu", -1000)
            audit.look(client)
            assert list(audit.leaks) == ["n1: cpu: 2000 given away, 1000 held by tasks"]
            assert audit.max_overcommit == 0
            client.hincrby(keys.node("n1"), "cpu", -4000)
            audit.look(client)
            assert audit.max_overcommit > 0
            assert app.deployment.fleet.audit("n1") != ""
            client.delete(node_queue("n1"))
    finally:
        end(app)


def test_a_lag_is_from_a_release_to_the_next_placement_on_that_node() -> None:
    events = [
        event("finished", "a", 1.0, outcome="succeeded"),
        event("placed", "b", 1.5, node="n2"),
        event("placed", "c", 1.25),
        event("placed", "d", 9.0),
        event("finished", "late", 20.0, outcome="succeeded"),
    ]
    assert dispatch_lags(events, 0.0, 10.0) == [0.25]


def test_a_plan_follows_from_its_seed() -> None:
    plans = [full_plan(seed, 100, 1000) for seed in (1, 1, 2)]
    for draw in (draw_fleet, draw_loss, lambda plan: list(draw_jobs(plan, "burst", 1000))):
        first, again, other = (draw(plan) for plan in plans)
        assert first == again != other


def test_the_full_plan_is_as_large_as_it_says() -> None:
    plan = full_plan(1, 1000, 24_000)
    loss = draw_loss(plan)
    assert len(loss.silent()) == 100
    assert all((loss.gone, loss.early, loss.late, loss.cut, loss.drained, loss.leaving))
    assert not set(loss.silent()) & {*loss.drained, *loss.leaving}
    kinds = {job.kind for job in draw_jobs(plan, "burst", plan.burst)}
    assert kinds == {"usual", "eta", "expires", "cancelled", "never"}
    assert len({node.capacity for node in draw_fleet(plan)}) > 50
