"""A node whose engine does not answer: container jobs wait or go elsewhere, and nothing fails for it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from celery.result import AsyncResult

from cloudai import run_container
from cloudai.cli.task_report import task_report
from cloudai_workers.runners.engine_address import engine_address

from ...waiting import PATIENCE_S, until
from ..celery.cluster import Cluster
from .engine_door import EngineDoor


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Nodes are trusted although their hearts beat rarely."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), {"scheduling": {"staleness_s": 300.0}})
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def door(engine: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineDoor]:
    """A way to the engine that is shut."""
    address = engine_address("")
    if not address.startswith("unix://"):
        pytest.skip(f"needs an engine behind a socket of this machine, not {address}")
    door = EngineDoor(tmp_path_factory.mktemp("door") / "engine.sock", address.removeprefix("unix://"))
    yield door
    door.shut()


def submit(cluster: Cluster, image: str) -> AsyncResult:
    """A container job."""
    task = cluster.app.tasks[run_container.name]
    return task.apply_async(
        kwargs={"image": image, "command": ["echo", "done"], "pull": "never"},
        resources={"cpu": 0.5, "memory": "32MiB"},
    )


def label(cluster: Cluster, node: str) -> str:
    """What a node announces of container jobs."""
    return str(json.loads(cluster.deployment.fleet.entry(f"{node}@t")["labels"])["containers"])


def test_a_node_without_its_engine_takes_other_tasks_only(cluster: Cluster, image: str, door: EngineDoor) -> None:
    node = cluster.start("engineless", runner="docker", docker_url=door.url)
    assert label(cluster, "engineless") == "engine-away"
    assert "runner-unavailable" in node.log
    job = submit(cluster, image)
    cluster.until_state(job.id, "waiting")
    assert cluster["add"].delay(1, 2).get(timeout=PATIENCE_S) == 3
    assert cluster.state(job.id) == "waiting"
    (refused,) = task_report(cluster.deployment, job.id)["waits_because"]["nodes"][0]["refused"]
    assert (refused["needs"], refused["has"]) == ("containers=yes", "containers=engine-away")

    door.open()
    assert job.get(timeout=PATIENCE_S)["stdout_tail"] == "done\n"
    assert "runner-back" in node.log
    door.shut()
    until(lambda: label(cluster, "engineless") == "engine-away", "the engine is missed")
    job = submit(cluster, image)
    cluster.until_state(job.id, "waiting")
    cluster.start("engined", runner="docker")
    assert job.get(timeout=PATIENCE_S)["node"] == "engined@t"
    cluster.worker("engined@t").stop()
    node.stop()


def test_a_job_that_cannot_begin_is_given_back(cluster: Cluster, image: str, door: EngineDoor) -> None:
    # It looks at its engine as often as its heart beats: not again in this test, unless a job makes it look.
    rare = {"heartbeat_interval_s": 60.0, "heartbeat_timeout_s": 180.0, "lease_s": 400.0}
    door.open()
    node = cluster.start("looks-rarely", runner="docker", docker_url=door.url, **rare)
    assert label(cluster, "looks-rarely") == "yes"
    door.shut()
    job = submit(cluster, image)
    until(lambda: "waiting" in [event["event"] for event in cluster.events(job.id)], "it is given back")
    (given_back,) = (event for event in cluster.events(job.id) if event["event"] == "waiting")
    assert given_back["reason"].startswith("it did not begin on looks-rarely@t: no engine has answered")
    assert label(cluster, "looks-rarely") == "engine-away"
    door.open()
    record = job.get(timeout=PATIENCE_S)
    assert (record["stdout_tail"], record["attempt"]) == ("done\n", 2)
    assert cluster.deployment.ledger.entry(job.id).get("losses", "0") == "0"
    node.stop()
    cluster.quiet()
