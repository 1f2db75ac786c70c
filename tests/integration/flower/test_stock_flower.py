"""Flower as its authors ship it: it shows nodes, tasks, queues with their lengths, and its button stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudai import names
from cloudai.local_cluster import _as_environment

from ..celery.cluster import HERE, Cluster, WorkerProcess, until


class Flower:
    """A Flower process on a free port of this machine."""

    def __init__(self, cluster: Cluster) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        settings = {"redis": {"url": cluster.valkey.url}}
        environment = {
            **os.environ, **_as_environment(settings),
            "PYTHONPATH": str(HERE), "FLOWER_UNAUTHENTICATED_API": "true",
        }  # fmt: skip
        command = [
            sys.executable, "-m", "celery", "-A", "jobs", "flower", "--address=127.0.0.1", f"--port={port}",
            "--inspect_timeout=3000",
        ]  # fmt: skip
        self.process = WorkerProcess("flower", command, environment, cluster.folder / "flower.log")
        until(self._answers, "Flower answers", 60)

    def _answers(self) -> bool:
        assert self.process.process.poll() is None, self.process.log
        try:
            return self.get("/healthcheck") == "OK"
        except urllib.error.URLError:
            return False

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return str(answer.read().decode())

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def post(self, path: str) -> Any:
        request = urllib.request.Request(self.url + path, data=b"", method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read().decode())


@pytest.fixture(scope="module")
def cluster(bare_cluster: Cluster) -> Cluster:
    bare_cluster.start("one", "-E", cpu=2)
    return bare_cluster


@pytest.fixture(scope="module")
def flower(cluster: Cluster) -> Iterator[Flower]:
    flower = Flower(cluster)
    yield flower
    flower.process.stop()


def test_it_shows_the_nodes(flower: Flower) -> None:
    found = until(lambda: flower.json("/api/workers?refresh=true"), "the node is listed", 60)
    assert "one@t" in found
    assert "one@t" in flower.get("/workers")


def test_it_shows_a_task_and_where_it_ran(cluster: Cluster, flower: Flower) -> None:
    until(lambda: flower.json("/api/workers?refresh=true"), "Flower listens", 60)

    def seen() -> Any:
        # Flower hears what happens from the moment on at which it listens, so a task may be too early for it.
        job = cluster["add"].delay(2, 3)
        assert job.get(timeout=60) == 5
        try:
            return flower.json(f"/api/task/info/{job.id}")
        except urllib.error.HTTPError:
            return None

    task = until(lambda: (found := seen()) and found.get("state") == "SUCCESS" and found, "Flower knows the task", 60)
    assert task["name"] == "jobs.add"
    assert task["worker"] == "one@t"
    assert task["result"] == "5"


def test_it_shows_the_length_of_a_nodes_queue(cluster: Cluster, flower: Flower) -> None:
    until(lambda: flower.json("/api/workers?refresh=true"), "the node is listed", 60)
    queue = names.node_queue("one@t")

    def length() -> int:
        found = {each["name"]: each["messages"] for each in flower.json("/api/queues/length")["active_queues"]}
        return int(found[queue])

    assert length() == 0
    node = cluster.worker("one@t")
    node.signal(signal.SIGSTOP)
    try:
        # Nothing reads the queue now. The server hands the first doorbell to the read that waits; the second stays.
        jobs = [cluster["add"].delay(i, 2) for i in range(2)]
        for job in jobs:
            cluster.until_state(job.id, "placed")
        until(lambda: length() == 1, "Flower counts it", 60)
    finally:
        node.signal(signal.SIGCONT)
    assert [job.get(timeout=60) for job in jobs] == [2, 3]


def test_its_terminate_button_stops_a_job(cluster: Cluster, flower: Flower) -> None:
    job = cluster.app.tasks["cloudai.run_container"].apply_async(
        kwargs={"image": "none", "command": ["sleep", "600"]}, resources={"cpu": 1, "memory": "64MiB"}
    )
    cluster.until_state(job.id, "running")
    answer = flower.post(f"/api/task/revoke/{urllib.parse.quote(job.id)}?terminate=true")
    assert job.id in answer["message"]
    cluster.until_state(job.id, "cancelled")
    until(lambda: job.state == "REVOKED", "the caller sees it", 60)


def test_its_button_cancels_what_waits(cluster: Cluster, flower: Flower, witness: Path, gate: Path) -> None:
    held = [cluster["hold"].delay(str(witness), str(gate)) for _ in range(2)]
    for job in held:
        cluster.until_state(job.id, "running")
    second = cluster["add"].delay(1, 1)
    cluster.until_state(second.id, "waiting")
    flower.post(f"/api/task/revoke/{urllib.parse.quote(second.id)}?terminate=true")
    cluster.until_state(second.id, "cancelled")
    gate.touch()
    assert [job.get(timeout=60) for job in held] == ["one@t"] * 2
    cluster.quiet()
