"""A local cluster: real nodes and a real Valkey that start together and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cloudai.app import CloudAI
from cloudai.local_cluster import LocalCluster, LocalClusterError
from cloudai.local_nodes import DEFAULT_NODES, LocalNode, default_nodes, read_nodes
from cloudai.names import CONTAINER_TASK
from cloudai.settings import ConfigurationError

from ..waiting import until

NODES = (
    LocalNode("tiny", cpu=0.5, memory=1, slots=1),
    LocalNode("big", cpu=4, memory=8, gpus=2, storage=30, slots=6, labels={"zone": "b"}),
)

#: No engine listens there.
NO_ENGINE = {"node": {"docker_url": "unix:///nowhere/docker.sock"}}


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not reaped by its new parent yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def app_of() -> Iterator[Callable[[LocalCluster], CloudAI]]:
    """Applications that submit to a cluster, closed after the test."""
    apps = []

    def make(cluster: LocalCluster) -> CloudAI:
        app = CloudAI("test-local-cluster", settings=cluster.settings, set_as_current=False)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.deployment.client.close()
        app.backend.client.close()
        app.close()


def submit(app: CloudAI, *command: str, **options: Any) -> Any:
    return app.tasks[CONTAINER_TASK].apply_async(kwargs={"image": "any", "command": list(command)}, **options)


def test_nodes_join_with_what_they_declare_run_jobs_and_end(tmp_path, app_of):
    cluster = LocalCluster(tmp_path, NODES, runner="process")
    with cluster:
        pids = [*cluster.pids.values(), cluster.valkey_pid]
        assert cluster.pids.keys() == {"tiny@local", "big@local"}
        entry = cluster.deployment.fleet.entry("big@local")
        assert entry["cpu_capacity"] == "4000"
        assert entry["memory_capacity"] == str(8 << 20)
        assert entry["storage_capacity"] == str(30 << 20)
        assert entry["slots_capacity"] == "6"
        assert entry["gpu_capacity"] == "2"
        assert json.loads(entry["labels"]) == {"zone": "b", "containers": "yes"}
        app = app_of(cluster)
        pinned = submit(app, "echo", "hello", target_worker_id="tiny@local", resources={"cpu": 0.5})
        result = pinned.get(timeout=60)
        only_big = submit(app, "echo", "hello", resources={"cpu": 3}).get(timeout=60)
    assert (result["node"], result["stdout_tail"]) == ("tiny@local", "hello\n")
    assert only_big["node"] == "big@local"
    assert not any(is_alive(pid) for pid in pids)
    assert cluster.pids == {}


def test_stop_ends_a_job_that_would_not_end(tmp_path, app_of):
    cluster = LocalCluster(tmp_path, NODES[:1], runner="process").start()
    try:
        mark = tmp_path / "pid"
        job = submit(app_of(cluster), "sh", "-c", f"echo $$ >{mark}; sleep 600", resources={"cpu": 0.5})
        log = tmp_path / "logs" / "tiny.log"
        until(
            lambda: mark.exists() and mark.read_text().strip() != "",
            lambda: f"the job has begun: {cluster.deployment.ledger.entry(job.id)}\n{log.read_text()}",
        )
    finally:
        cluster.stop(timeout_s=0.2)
    assert not is_alive(int(mark.read_text()))


def test_a_node_that_cannot_start_is_told_with_its_log_and_nothing_stays(tmp_path):
    cluster = LocalCluster(tmp_path, NODES, runner="process", environment={"CLOUDAI_NODE__LEASE_S": "-1"})
    with pytest.raises(LocalClusterError, match=r"@local ended while it started[\s\S]*LEASE_S"):
        cluster.start()
    assert cluster.pids == {}
    assert cluster.valkey_pid is None


def test_a_node_that_ends_by_itself_is_told(tmp_path):
    with LocalCluster(tmp_path, NODES[:1], runner="process") as cluster:
        assert cluster.ended() == []
        os.kill(cluster.pids["tiny@local"], signal.SIGKILL)
        until(lambda: cluster.pids == {}, "the node has ended")
        (told,) = cluster.ended()
    assert told.startswith("node tiny@local has ended")


def test_a_redis_of_the_users_own_is_used_and_left_running(tmp_path, redis_url, redis_client):
    cluster = LocalCluster(tmp_path, NODES[:1], runner="process", redis_url=redis_url)
    with cluster:
        assert cluster.url == redis_url
        assert cluster.valkey_pid is None
    assert redis_client.ping()


def test_everything_ends_with_an_owner_that_is_killed(tmp_path):
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent("""
                import sys, time
                from cloudai.local_cluster import LocalCluster
                from cloudai.local_nodes import default_nodes
                cluster = LocalCluster(sys.argv[1], default_nodes(1), runner="process").start()
                print(cluster.valkey_pid, *cluster.pids.values(), flush=True)
                time.sleep(600)
            """),
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        owner.kill()
    assert len(pids) == 2
    until(lambda: not any(is_alive(pid) for pid in pids), "Valkey and node have ended")


def test_without_an_engine_auto_takes_processes_and_docker_is_refused(tmp_path):
    chosen = LocalCluster(tmp_path, NODES, runner="auto", overrides=NO_ENGINE)
    assert chosen.runner == "process"
    assert chosen.engine_problem == "/nowhere/docker.sock: No such file or directory"
    with pytest.raises(LocalClusterError, match="no container engine answers"):
        LocalCluster(tmp_path, NODES, runner="docker", overrides=NO_ENGINE).start()


@pytest.mark.docker
def test_with_an_engine_auto_takes_docker(tmp_path, docker_engine):
    assert LocalCluster(tmp_path, NODES, runner="auto").runner == "docker"


def test_up_says_in_one_line_where_it_is_and_ends_on_sigterm(tmp_path):
    nodes = tmp_path / "nodes.toml"
    nodes.write_text('[[nodes]]\nname = "one"\ncpu = 1\nmemory = "2GiB"\nlabels = {zone = "a"}\n')
    up = subprocess.Popen(
        [
            *(sys.executable, "-c", "from cloudai.cli import main; main()", "up", "--json"),
            *("--runner", "process", "--port", "0", "--nodes", str(nodes), "--folder", str(tmp_path / "up")),
            *("--mongo-port", "0", "--flower-port", "0"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with up:
        ready = json.loads(up.stdout.readline())
        with redis.Redis.from_url(ready["url"]) as client:
            assert client.ping()
        control, flower = (tmp_path / "up" / "logs" / f"{name}.log" for name in ("control", "flower"))
        until(lambda: "control-started" in control.read_text(), control.read_text)
        until(lambda: answers(ready["flower_url"] + "/healthcheck"), flower.read_text)
        up.terminate()
        rest = up.stdout.read()
    others = ("valkey", "mongo", "control", "flower")
    pids = [*ready["pids"]["nodes"].values(), *(ready["pids"][name] for name in others)]
    assert ready["mongo_url"].startswith("mongodb://127.0.0.1:")
    assert list((tmp_path / "up" / "control").glob("beat-schedule*"))
    assert list(ready["pids"]["nodes"]) == ["one@local"]
    assert ready["nodes"][0]["labels"] == {"zone": "a"}
    assert ready["runner"] == "process"
    assert rest == ""
    assert up.returncode == 0
    assert not any(is_alive(pid) for pid in pids)


def test_up_starts_nodes_of_the_application_that_it_is_given(tmp_path):
    (tmp_path / "own_tasks.py").write_text(
        textwrap.dedent("""
            from cloudai import CloudAI

            app = CloudAI("own")

            @app.task(resources={"cpu": 0.5})
            def double(number):
                return 2 * number
        """)
    )
    up = subprocess.Popen(
        [
            *(
                sys.executable,
                "-c",
                "from cloudai.cli import main; main()",
                "-A",
                "own_tasks",
                "up",
                "--json",
            ),
            *("--runner", "process", "--port", "0", "--nodes", "1", "--folder", "up", "--no-control", "--no-flower"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    with up:
        ready = json.loads(up.stdout.readline())
        assert (ready["mongo_url"], ready["flower_url"], ready["pids"]["control"]) == (None, None, None)
        submitted = subprocess.run(
            [sys.executable, "-c", "from own_tasks import double; print(double.delay(21).get(timeout=60))"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "CLOUDAI_REDIS__URL": ready["url"]},
        )
        up.terminate()
    assert submitted.stdout == "42\n", submitted.stderr


def test_default_nodes_take_turns_and_have_names_of_their_own():
    assert default_nodes(3) == DEFAULT_NODES
    nodes = default_nodes(7)
    assert [node.name for node in nodes[3:]] == ["small-2", "medium-2", "large-2", "small-3"]
    assert nodes[5].gpus == 2
    with pytest.raises(ConfigurationError, match="nodes: given 0, allowed: 1 to 64"):
        default_nodes(0)


def test_nodes_are_read_from_toml_and_from_json(tmp_path):
    entry = {"name": "one", "cpu": 2, "memory": "512MiB", "gpus": 1, "labels": {"zone": "a"}}
    as_json = tmp_path / "nodes.json"
    as_json.write_text(json.dumps([entry]))
    as_toml = tmp_path / "nodes.toml"
    as_toml.write_text(
        '[[nodes]]\nname = "one"\ncpu = 2\nmemory = "512MiB"\ngpus = 1\nlabels = {zone = "a"}\n'
    )
    assert read_nodes(as_json) == read_nodes(as_toml)
    assert read_nodes(as_json) == (LocalNode("one", 2.0, 0.5, 1, slots=4, labels={"zone": "a"}),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[nodes]]\ncpu = 1\nmemory = 1", r"nodes\[0\]\.name: missing"),
        ('[[nodes]]\nname = "a"\ncpu = -1\nmemory = 1', r"nodes\[0\]\.cpu: given -1"),
        (
            '[[nodes]]\nname = "a"\ncpu = 1\nmemory = 1\ncolour = 2',
            r"nodes\[0\]\.colour: unknown, allowed: name",
        ),
        (
            '[[nodes]]\nname = "a"\ncpu = 1\nmemory = 1\n[[nodes]]\nname = "a"\ncpu = 1\nmemory = 1',
            "name: a@local is given 2 times",
        ),
        ("nodes = 3", "nodes: given 3, allowed: a list of nodes"),
        ("nodes = [", "neither TOML nor"),
    ],
)
def test_a_file_of_nodes_that_is_wrong_is_refused_with_what_is_allowed(tmp_path, text, told):
    path = tmp_path / "nodes.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        read_nodes(path)


def test_a_file_of_nodes_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nodes\.toml: cannot be read"):
        read_nodes(tmp_path / "nodes.toml")
