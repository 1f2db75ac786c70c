"""The same programs on stock Celery and on CloudAI: users see the same values, states and errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from cloudai import CloudAI
from cloudai.settings import Settings

from ...waiting import until
from .canvas_project import PROGRAMS, Seen, build
from .cluster import HERE, Cluster, WorkerProcess, close


@pytest.fixture(scope="module")
def stock(bare_cluster: Cluster) -> Iterator[Celery]:
    """The project on stock Celery, in a database of its own, with a worker of two threads."""
    url = bare_cluster.valkey.url.removesuffix("/0") + "/1"
    command = [sys.executable, "-m", "celery", "-A", "canvas_project", "worker", "-n", "stock@t", "-l", "info"]
    worker = WorkerProcess(
        "stock@t", [*command, "-P", "threads", "-c", "2"],
        {**os.environ, "PYTHONPATH": str(HERE), "CANVAS_ON": "stock", "CANVAS_URL": url},
        bare_cluster.folder / "stock.log",
    )  # fmt: skip
    app = build(Celery("canvas", broker=url, backend=url, set_as_current=False))
    try:
        until(lambda: " ready." in worker.log, "the stock worker is ready", 60)
        yield app
    finally:
        worker.stop()
        app.close()
        app.backend.result_consumer.stop()
        app.backend.remove_pending_result = lambda result: result
        app.backend.client.close()


@pytest.fixture(scope="module")
def ours(bare_cluster: Cluster) -> Iterator[CloudAI]:
    """The project on CloudAI, with a node of two cores."""
    bare_cluster.environment["CANVAS_ON"] = "cloudai"
    bare_cluster.start("one", cpu=2, slots=2, project="canvas_project")
    settings = Settings.load(redis={"url": bare_cluster.valkey.url})
    app = CloudAI("canvas", settings=settings, set_as_current=False)
    yield build(app, resources={"cpu": 0.5, "memory": "64MiB"})
    close(app)


@pytest.mark.parametrize("name", PROGRAMS)
def test_users_see_the_same(name: str, ours: CloudAI, stock: Celery, tmp_path: Path) -> None:
    # One after the other: Celery's consumer of results bears one thread, and it is collected in any.
    seen = []
    for kind, app in (("stock", stock), ("ours", ours)):
        (tmp_path / kind).mkdir()
        seen.append(PROGRAMS[name](Seen(app, tmp_path / kind)))
    assert seen[1] == seen[0]


def test_nothing_is_left(ours: CloudAI, bare_cluster: Cluster) -> None:
    """Every task of these programs has ended once, and gave back what it held."""
    bare_cluster.quiet()
    assert bare_cluster.deployment.ledger.totals().get("dead_letters_total", 0) == 0
