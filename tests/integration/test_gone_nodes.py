"""Nodes that have left do not hide what a task waits for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cloudai import CloudAI
from cloudai.cli import cloudai

from .without_workers import end, join, make_app


@pytest.fixture
def app(redis_url: str) -> Iterator[CloudAI]:
    app = make_app(redis_url)
    yield app
    end(app)


def ask(app: CloudAI, *args: str) -> str:
    done = CliRunner().invoke(cloudai, [*args], obj=SimpleNamespace(app=app))
    assert done.exit_code == 0, done.output
    return done.stdout


def waiting(app: CloudAI, **options: object) -> str:
    return str(app.send_task("any", resources={"cpu": 2, "memory": "1GiB"}, **options).id)


def test_what_a_task_waits_for_is_told_of_the_nodes_in_service(app: CloudAI) -> None:
    for name in ("gone1", "gone2", "gone3"):
        join(app, name, cpu=4000)
        app.deployment.fleet.sign_off(name, "1")
    join(app, "here", cpu=1000)
    join(app, "leaving", cpu=4000)
    app.deployment.fleet.drain("leaving")
    task_id = waiting(app)

    report = json.loads(ask(app, "explain", task_id, "--json"))
    assert report["decision"]["refusals"] == {"gone": 3, "not_accepting": 1, "cpu": 1}
    why = report["waits_because"]
    assert why["text"] == (
        "no node can take it now: not_accepting (1 node), cpu (1 node); 3 more nodes are down or lost"
    )
    assert [node["node"] for node in why["nodes"]] == ["here", "leaving"]
    assert (why["nodes_in_all"], why["nodes_gone"]) == (2, 3)
    (listed,) = json.loads(ask(app, "pending", "--json"))["tasks"]
    assert listed["why"] == why["text"]

    told = ask(app, "explain", task_id)
    assert "3 more nodes are down or lost: see `cloudai nodes`." in told
    assert "gone1" not in told
    assert [node["state"] for node in json.loads(ask(app, "nodes", "--json"))["nodes"]] == [
        "down", "down", "down", "up", "draining",
    ]  # fmt: skip


def test_a_node_that_is_gone_is_named_to_who_asked_for_it(app: CloudAI) -> None:
    join(app, "gone", cpu=4000)
    app.deployment.fleet.sign_off("gone", "1")
    task_id = waiting(app, target_worker_id="gone")
    why = json.loads(ask(app, "explain", task_id, "--json"))["waits_because"]
    assert why["text"] == "no node can take it now: no node is in service, 1 node is down or lost"
    assert why["nodes"] == [
        {"node": "gone", "refused": [{"reason": "gone", "needs": "a node in service", "has": "down or lost"}]}
    ]
