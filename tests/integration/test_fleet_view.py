"""What one process knows of the fleet, against a real Redis."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from datetime import timedelta

import pytest
import redis

from cloudai import CloudAI
from cloudai.deployment import Deployment
from cloudai.scheduling.parameters import GAParams
from cloudai.settings import RedisSettings, SchedulingSettings, Settings
from cloudai.state.fleet import NodeCapacity
from cloudai.state.sweep import FORGET_AFTER_S


@pytest.fixture
def deployment(redis_url: str) -> Deployment:
    settings = Settings.load(
        redis=RedisSettings(url=redis_url), scheduling=SchedulingSettings(params_reload_interval_s=1)
    )
    made = Deployment(settings)
    yield made
    made.client.close()


def join(deployment: Deployment, name: str, incarnation: str = "1", cpu: int = 4000) -> None:
    deployment.fleet.register(
        name, incarnation, NodeCapacity(cpu, 1 << 20, 0, 0, 4), labels={"zone": "a"}, timeout_s=60, lease_s=600,
        pressure=0.25, max_attempts=3, finished_ttl_s=60, shown={},
    )  # fmt: skip


def test_a_deadline_counts_by_the_servers_clock_from_the_first_submission_on(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = CloudAI("skewed", settings=deployment.settings, set_as_current=False)
    here = time.time()
    with monkeypatch.context() as skewed:
        skewed.setattr("cloudai.fleet_view.time.time", lambda: here + 7200)
        _ = app.deployment.view
    asked = {"resources": {"cpu": 1}, "deadline": timedelta(seconds=60)}
    header = app.request_header("any", (), {}, asked, task_id="t")
    seconds, _ = app.deployment.client.time()
    app.deployment.client.close()
    assert header.deadline == pytest.approx(seconds + 60, abs=600)


def test_an_answer_that_comes_late_does_not_bring_an_older_row_back(deployment: Deployment) -> None:
    join(deployment, "n1")
    late = deployment.fleet.refresh(0, 10, None)
    deployment.fleet.drain("n1")
    view = deployment.view
    view.refresh()
    assert not view.snapshot.accepting[0]
    view.apply(late.changes)
    assert not view.snapshot.accepting[0]


def test_a_node_appears_with_its_capacity_and_labels(deployment: Deployment) -> None:
    join(deployment, "n1")
    view = deployment.view
    view.refresh()
    (state,) = view.snapshot.states
    assert (state.name, state.cpu_capacity, state.labels, state.pressure) == ("n1", 4000, {"zone": "a"}, 0.25)


def test_a_new_incarnation_replaces_the_old_ones_capacity(deployment: Deployment) -> None:
    join(deployment, "n1")
    deployment.view.refresh()
    deployment.fleet.sign_off("n1", "1")
    join(deployment, "n1", incarnation="2", cpu=1000)
    deployment.view.refresh()
    (state,) = deployment.view.snapshot.states
    assert state.cpu_capacity == 1000


def test_labels_that_are_announced_anew_are_seen(deployment: Deployment) -> None:
    join(deployment, "n1")
    view = deployment.view
    view.refresh()
    for value in ("a", "b"):
        deployment.fleet.announce("n1", "1", labels={"zone": value}, home="")
        view.refresh()
        assert view.snapshot.states[0].labels == {"zone": value}
        assert view.snapshot.label_mask("zone", value).tolist() == [True]


def test_a_node_that_left_long_ago_is_forgotten(deployment: Deployment, redis_client: redis.Redis) -> None:
    view = deployment.view
    for name in ("left", "left long ago", "silent"):
        join(deployment, name)
    view.refresh()
    for name in ("left long ago", "silent"):
        redis_client.hincrbyfloat(deployment.keys.node(name), "heartbeat", -FORGET_AFTER_S - 1)
    for name in ("left", "left long ago"):
        deployment.fleet.sign_off(name, "1")
    deployment.fleet.announce("silent", "1", labels={}, home="")
    view.refresh()
    assert view.snapshot.names == ["left", "silent"]
    join(deployment, "left long ago", "2")
    view.refresh()
    assert view.snapshot.names == ["left", "left long ago", "silent"]


def test_a_fleet_that_redis_has_lost_is_read_anew(
    deployment: Deployment, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("n1", "n2", "n3"):
        join(deployment, name)
    deployment.view.refresh()
    redis_client.flushdb()
    join(deployment, "n4")
    with caplog.at_level(logging.WARNING, "cloudai"):
        deployment.view.refresh()
    assert deployment.view.snapshot.names == ["n4"]
    assert "fleet-lost" in caplog.text


def test_an_assumption_ends_with_what_redis_says(deployment: Deployment) -> None:
    join(deployment, "n1")
    view = deployment.view
    view.refresh()
    view.assume(replace(view.snapshot.states[0], cpu_available=0))
    assert view.snapshot.cpu[0] == 0
    view.forget_assumptions()
    assert view.snapshot.cpu[0] == 4


def test_published_parameters_are_taken_and_what_changed_is_said(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.parameters.publish(replace(GAParams(), alpha=12.0), "test")
    with caplog.at_level(logging.INFO, "cloudai"):
        deployment.view.refresh()
    assert (deployment.view.parameters.alpha, deployment.view.parameters.version) == (12.0, 1)
    assert "alpha: 10 -> 12" in caplog.text


def test_parameters_that_cannot_be_read_leave_those_in_force(
    deployment: Deployment, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    broken = json.dumps({"schema": 99})
    redis_client.hset(deployment.keys.parameters, mapping={"version": 5, "json": broken, "source": "x", "published": 0})
    with caplog.at_level(logging.ERROR, "cloudai"):
        deployment.view.refresh()
    assert deployment.view.parameters == GAParams()
    assert "parameters-refused" in caplog.text
