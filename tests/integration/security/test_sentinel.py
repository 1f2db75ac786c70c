"""Broker, results and state behind Sentinel."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import chord

from cloudai import CloudAI
from cloudai.embedded.server import free_port
from cloudai.embedded.valkey import _binary
from cloudai.settings import ConfigurationError, Settings

from ...waiting import until
from ..celery.cluster import Cluster

MASTER = "cloudai-master"


@pytest.fixture
def sentinel(bare_cluster: Cluster, tmp_path: Path) -> Iterator[redis.Redis]:
    """A Sentinel that watches the cluster's server."""
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {tmp_path}\n"
        f"sentinel monitor {MASTER} 127.0.0.1 {bare_cluster.valkey.port} 1\n"
        f"sentinel down-after-milliseconds {MASTER} 60000\n",
        encoding="utf-8",
    )
    with (tmp_path / "sentinel.log").open("wb") as log:
        process = subprocess.Popen([_binary(), config, "--sentinel"], stdout=log, stderr=log)
    client = redis.Redis(port=port, decode_responses=True)
    try:
        until(lambda: _answers(client), "the Sentinel answers", 60)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(30)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_tasks_run_behind_a_sentinel(bare_cluster: Cluster, sentinel: redis.Redis) -> None:
    port = sentinel.connection_pool.connection_kwargs["port"]
    url = f"sentinel://127.0.0.1:{port}/0;sentinel://127.0.0.1:{free_port()}/0"
    bare_cluster.configure({"redis": {"url": url, "sentinel_master": MASTER}})
    node = bare_cluster.start("one", cpu=2)
    app = bare_cluster.new_app()
    assert app.tasks["jobs.add"].apply_async((1, 2), countdown=0.5).get(timeout=60) == 3
    header = [app.tasks["jobs.add"].s(i, 1) for i in range(3)]
    assert chord(header, app=app)(app.tasks["jobs.total"].s()).get(timeout=60) == 6
    assert app.deployment.client.client_info()["db"] == 0
    node.stop()
    bare_cluster.quiet()


def test_a_sentinel_s_master_must_be_named() -> None:
    with pytest.raises(ConfigurationError, match="sentinel_master"):
        Settings.load(redis={"url": "sentinel://127.0.0.1:26379/0"})
    app = CloudAI("unnamed", broker="sentinel://127.0.0.1:26379/0", set_as_current=False)
    with pytest.raises(ConfigurationError, match="sentinel_master"):
        _ = app.deployment
