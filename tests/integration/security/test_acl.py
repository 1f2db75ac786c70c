"""The ACL profiles on a real server, over TLS: what each kind of process can do, and what it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis
from celery import chord
from click.testing import CliRunner
from kombu.exceptions import OperationalError
from redis.exceptions import NoPermissionError

from cloudai import CloudAI
from cloudai.acl import PROFILES, acl_rules
from cloudai.cli import cloudai as program
from cloudai.names import node_queue

from ..celery.cluster import Cluster, close
from .tls import CERTIFICATE, TlsDoor

ADMINISTRATION = [
    ("CONFIG", "GET", "*"), ("CONFIG", "SET", "maxmemory", "1"), ("FLUSHALL",), ("FLUSHDB",), ("KEYS", "*"), ("SAVE",),
    ("BGREWRITEAOF",), ("SHUTDOWN", "NOSAVE"), ("ACL", "LIST"), ("ACL", "SETUSER", "x", "on"),
    ("CLIENT", "LIST"), ("CLIENT", "KILL", "TYPE", "normal"), ("MONITOR",), ("REPLICAOF", "127.0.0.1", "1"),
    ("FUNCTION", "LIST"), ("FUNCTION", "LOAD", "#!lua name=x\n"), ("SCRIPT", "FLUSH"), ("SCRIPT", "KILL"),
    ("MODULE", "LIST"), ("MIGRATE", "127.0.0.1", "1", "x", "0", "1"), ("SWAPDB", "0", "1"), ("SORT", "x"),
    ("SLOWLOG", "GET"), ("LATENCY", "RESET"), ("CLUSTER", "INFO"), ("RESTORE", "x", "0", "x"),
]  # fmt: skip

#: Keys that others may have on the same server.
OTHERS = ("session:42", "{other}:task:1", "celery", "_kombu.binding.celery")


class Deployment:
    """A cluster on a server that knows the profiles; its nodes come in over TLS, as the user `node`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.port = cluster.valkey.port
        self.door = TlsDoor(self.port)
        with redis.Redis(port=self.port) as administrator:
            for profile in PROFILES:
                rules = acl_rules(profile.name, "cloudai")
                administrator.execute_command("ACL", "SETUSER", profile.name, "reset", "on", ">pw", *rules)
            for key in OTHERS:
                administrator.set(key, "theirs")
        cluster.start("one", cpu=2, redis_url=self.url("node"))

    def url(self, user: str) -> str:
        return f"rediss://{user}:pw@127.0.0.1:{self.door.port}/0?ssl_cert_reqs=required&ssl_ca_certs={CERTIFICATE}"

    def client(self, user: str) -> redis.Redis:
        return redis.Redis(port=self.port, username=user, password="pw")


@pytest.fixture(scope="module")
def deployment(bare_cluster: Cluster) -> Iterator[Deployment]:
    made = Deployment(bare_cluster)
    yield made
    made.door.close()


@pytest.fixture
def submitter(deployment: Deployment) -> Iterator[CloudAI]:
    app = deployment.cluster.new_app({"redis": {"url": deployment.url("submitter")}})
    yield app
    close(app)


def test_a_submitter_submits_over_tls_and_gets_results(deployment: Deployment, submitter: CloudAI) -> None:
    tasks = submitter.tasks
    assert tasks["jobs.add"].delay(1, 2).get(timeout=60) == 3
    assert [r.get(timeout=60) for r in tasks["jobs.add"].apply_many([((i, i), {}) for i in range(3)])] == [0, 2, 4]
    header = [tasks["jobs.add"].s(i, 1) for i in range(3)]
    assert chord(header, app=submitter)(tasks["jobs.total"].s()).get(timeout=60) == 6
    assert deployment.door.passed > 2


def test_a_certificate_of_nobody_is_refused(deployment: Deployment) -> None:
    url = deployment.url("submitter").partition("&ssl_ca_certs")[0]
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError, match="certificate"):
        client.ping()


def test_a_submitter_takes_back_what_waits_but_commands_no_node(deployment: Deployment, submitter: CloudAI) -> None:
    waiting = submitter.tasks["jobs.add"].apply_async((1, 1), countdown=600)
    # The ledger's part is done; telling the workers is remote control, and refused.
    with pytest.raises((NoPermissionError, OperationalError)):
        waiting.revoke()
    assert deployment.cluster.state(waiting.id) == "cancelled"
    for command in (submitter.control.shutdown, submitter.control.purge):
        with pytest.raises((NoPermissionError, OperationalError)):
            command()
    assert submitter.tasks["jobs.add"].delay(1, 1).get(timeout=60) == 2


@pytest.mark.parametrize("user", [profile.name for profile in PROFILES])
def test_nobody_administers_the_server(deployment: Deployment, user: str) -> None:
    with deployment.client(user) as client:
        assert client.ping()
        for command in ADMINISTRATION:
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)


@pytest.mark.parametrize("user", [profile.name for profile in PROFILES])
def test_what_others_keep_on_the_server_is_out_of_reach(deployment: Deployment, user: str) -> None:
    theirs = [key for key in OTHERS if not (user in ("node", "control") and key.startswith("_kombu"))]
    with deployment.client(user) as client:
        for key in theirs:
            script = "return redis.call('GET', ARGV[1])"
            for command in (("GET", key), ("SET", key, "ours"), ("DEL", key), ("EVAL", script, 0, key)):
                with pytest.raises((NoPermissionError, redis.ResponseError), match=r"[Pp]ermission"):
                    client.execute_command(*command)
        with pytest.raises(NoPermissionError):
            client.publish("their-channel", "x")


def test_a_submitter_hears_no_remote_control_and_sends_none(deployment: Deployment) -> None:
    with deployment.client("submitter") as client:
        for channel in ("/0.celery.pidbox", "/0.celeryev/worker.heartbeat"):
            with pytest.raises(NoPermissionError):
                client.publish(channel, "x")
            with client.pubsub() as listener:
                listener.subscribe(channel)
                with pytest.raises(NoPermissionError):
                    listener.get_message(timeout=10)


def test_a_monitor_reads_and_writes_nothing(deployment: Deployment) -> None:
    environment = {"CLOUDAI_REDIS__URL": deployment.url("monitor")}
    ended = deployment.cluster["add"].delay(2, 2)
    ended.get(timeout=60)
    for words in (["status"], ["nodes"], ["pending"], ["explain", ended.id], ["tau", "show"]):
        found = CliRunner().invoke(program, [*words, "--json"], env=environment)
        assert found.exit_code == 0, found.output
        assert json.loads(found.stdout)
    with deployment.client("monitor") as client:
        keys = deployment.cluster.deployment.keys
        for command in (
            ("HSET", keys.counters, "x", 1), ("DEL", keys.events), ("LPUSH", node_queue("one@t"), "x"),
            ("SET", f"celery-task-meta-{ended.id}", "x"), ("PUBLISH", "/0.celery.pidbox", "x"),
            ("EVAL", "return redis.call('DEL', KEYS[1] .. 'events')", 1, keys.prefix),
        ):  # fmt: skip
            with pytest.raises((NoPermissionError, redis.ResponseError), match=r"[Pp]ermission"):
                client.execute_command(*command)


def test_a_monitor_serves_the_metrics(deployment: Deployment) -> None:
    environment = {"CLOUDAI_REDIS__URL": deployment.url("monitor")}
    found = CliRunner().invoke(program, ["metrics", "--json"], env=environment)
    assert found.exit_code == 0, found.output
    values = {value["name"]: value["value"] for value in json.loads(found.stdout)["metrics"]}
    assert values["cloudai_up"] == 1
    assert values["cloudai_events_unrecorded"] > 0


def test_control_moves_the_recorder_on(deployment: Deployment) -> None:
    app = deployment.cluster.new_app({"redis": {"url": deployment.url("control")}})
    events = app.deployment.events
    batch = events.unrecorded(1)
    assert len(batch.events) == 1
    assert events.recorded(batch)
    assert events.progress().recorded == 1
    close(app)


def test_control_cancels_and_drains(deployment: Deployment) -> None:
    app = deployment.cluster.new_app({"redis": {"url": deployment.url("control")}})
    waiting = app.tasks["jobs.add"].apply_async((1, 1), countdown=600)
    waiting.revoke()
    assert deployment.cluster.state(waiting.id) == "cancelled"
    assert app.control.ping(timeout=60, limit=1)
    fleet = app.deployment.fleet
    assert (fleet.drain("one@t"), fleet.undrain("one@t")) == ("draining", "up")
    close(app)


def test_the_node_was_never_refused_anything(deployment: Deployment) -> None:
    log = (deployment.cluster.folder / "one.log").read_text(encoding="utf-8")
    assert "NOPERM" not in log
    assert "ermission" not in log
    deployment.cluster.quiet()


@pytest.mark.parametrize("profile", [profile.name for profile in PROFILES])
def test_the_command_prints_a_profile(profile: str) -> None:
    found = CliRunner().invoke(program, ["acl", profile, "--namespace", "farm", "--queue", "mail", "--json"])
    assert json.loads(found.stdout) == {
        profile: {"user": f"farm-{profile}", "rules": acl_rules(profile, "farm", ("mail",))}
    }
    text = CliRunner().invoke(program, ["acl", profile, "--namespace", "farm"]).stdout
    assert f"ACL SETUSER farm-{profile} reset on '>PASSWORD'" in text
    assert "{farm}:*" in text
