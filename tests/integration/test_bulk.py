"""Many submissions at once, against a real Redis: the same state as as many `apply_async`, in a fraction of the
trips.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator

import pytest

from cloudai import CloudAI, run_container
from cloudai.errors import ClusterFull, InvalidRequest, Unplaceable
from cloudai.settings import RedisSettings, Settings

from .without_workers import end, join, make_app


@pytest.fixture
def app(redis_url: str) -> Iterator[CloudAI]:
    made = make_app(redis_url)
    yield made
    end(made)


def add(app: CloudAI):
    @app.task(name="add", resources={"cpu": 0.5, "memory": "8MiB"}, shared=False)
    def add(x: int, y: int = 0) -> int:
        return x + y

    return add


def test_each_call_is_a_task_of_its_own_with_its_arguments(app: CloudAI) -> None:
    join(app, "n1")
    results = add(app).apply_many([((i,), {"y": 2 * i}) for i in range(150)])
    assert len({result.id for result in results}) == 150
    ledger = app.deployment.ledger
    for i, result in enumerate(results):
        message = json.loads(ledger.message(result.id))
        args, kwargs, embed = json.loads(base64.b64decode(message["body"]))
        assert (args, kwargs, embed["chain"]) == ([i], {"y": 2 * i}, None)
        assert message["headers"]["id"] == message["headers"]["root_id"] == result.id
        assert message["properties"]["correlation_id"] == result.id
        assert message["headers"]["argsrepr"] == f"({i},)"
    assert ledger.totals()["live"] == 150


def test_the_message_is_what_apply_async_would_have_sent(app: CloudAI) -> None:
    join(app, "n1")
    task = add(app)
    one = task.apply_async((1,), {"y": 'quoted "text" \\ ü'}, priority=3)
    (many,) = task.apply_many([((1,), {"y": 'quoted "text" \\ ü'})], priority=3)
    ledger = app.deployment.ledger
    messages = []
    for result in (one, many):
        message = json.loads(ledger.message(result.id))
        message["properties"].pop("delivery_tag")
        message["headers"].pop("origin")
        messages.append(json.loads(json.dumps(message).replace(result.id, "ID")))
    assert messages[0]["headers"] == messages[1]["headers"]
    assert messages[0] == messages[1]
    entries = [ledger.entry(result.id) for result in (one, many)]
    differing = {"nonce", "arrival", "deadline", "submitted", "placed", "features", "predicted"}
    assert {k: v for k, v in entries[0].items() if k not in differing} == {
        k: v for k, v in entries[1].items() if k not in differing
    }


def test_a_bulk_is_spread_by_load_over_unequal_nodes(app: CloudAI) -> None:
    join(app, "large", cpu=90_000)
    join(app, "small", cpu=10_000)
    results = add(app).apply_many([((i,), {}) for i in range(100)])
    nodes = Counter(app.deployment.ledger.entry(result.id)["node"] for result in results)
    assert nodes["large"] > 4 * nodes["small"] > 0


def test_what_does_not_fit_waits_and_nothing_is_over_committed(app: CloudAI) -> None:
    join(app, "n1", cpu=4000)
    add(app).apply_many([((i,), {}) for i in range(30)])
    totals = app.deployment.ledger.totals()
    assert (totals["live"], totals["waiting"]) == (30, 22)
    assert app.deployment.fleet.entry("n1")["cpu"] == "0"


def test_a_wrong_call_among_many_leaves_nothing_written(app: CloudAI) -> None:
    join(app, "n1")
    before = app.deployment.client.dbsize()
    calls = [((), {"image": "busybox", "command": ["true"]}), ((), {"image": "Upper", "command": ["true"]})]
    task = app.tasks[run_container.name]
    with pytest.raises(InvalidRequest, match="image"):
        task.apply_many(calls, resources={"cpu": 1})
    assert app.deployment.client.dbsize() == before


def test_a_call_with_too_large_arguments_leaves_nothing_written(app: CloudAI) -> None:
    join(app, "n1")
    before = app.deployment.client.dbsize()
    with pytest.raises(InvalidRequest, match="arguments"):
        add(app).apply_many([*(((i,), {}) for i in range(200)), (("x" * 70_000,), {})])
    assert app.deployment.client.dbsize() == before


def test_unplaceable_is_refused_where_the_caller_asks_for_that(app: CloudAI) -> None:
    join(app, "n1", cpu=1000)
    with pytest.raises(Unplaceable, match="n1"):
        add(app).apply_many([((1,), {})], resources={"cpu": 64}, unplaceable="reject")
    assert app.deployment.ledger.totals()["live"] == 0


def test_an_option_that_is_not_taken_is_named(app: CloudAI) -> None:
    with pytest.raises(InvalidRequest, match="link"):
        add(app).apply_many([((1,), {})], link="another task")


def test_past_the_high_water_mark_the_accepted_ones_are_named(redis_url: str) -> None:
    app = make_app(redis_url, max_in_flight=100)
    join(app, "n1")
    with pytest.raises(ClusterFull) as caught:
        add(app).apply_many([((i,), {}) for i in range(150)])
    assert len(caught.value.accepted) == 100
    assert app.deployment.ledger.totals()["live"] == 100
    end(app)


def test_no_calls_are_no_results(app: CloudAI) -> None:
    assert add(app).apply_many([]) == []


def test_an_unknown_target_is_refused(app: CloudAI) -> None:
    join(app, "n1")
    with pytest.raises(InvalidRequest, match="target_worker_id"):
        add(app).apply_many([((1,), {})], target_worker_id="nobody")


@pytest.mark.parametrize("many", [False, True])
def test_strict_durability_waits_for_the_disk(redis_url: str, many: bool) -> None:
    settings = Settings.load(redis=RedisSettings(url=redis_url, durability="strict"))
    app = CloudAI("strict", settings=settings, broker=redis_url, set_as_current=False)
    app.conf.task_ignore_result = True
    join(app, "n1")
    task = add(app)
    before = app.deployment.client.info("persistence")["aof_last_write_status"]
    results = task.apply_many([((i,), {}) for i in range(40)]) if many else [task.apply_async((1,))]
    totals = app.deployment.ledger.totals()
    assert before == "ok"
    assert totals["live"] == len(results)
    assert totals["strict_waits"] == (2 if many else 1)
    end(app)
