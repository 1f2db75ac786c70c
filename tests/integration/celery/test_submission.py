"""What is refused at submission, with nothing written; what tasks may ask for, and how applications adopt it."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.beat import Scheduler

from cloudai.cli.task_report import task_report
from cloudai.errors import ContainerError, DuplicateTask, InvalidRequest, Unplaceable
from cloudai.scheduling.requests import Resources

from ...waiting import until
from .cluster import Cluster, close

#: A secret that the node has; nobody else may ever see it.
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def cluster(bare_cluster: Cluster) -> Cluster:
    bare_cluster.environment["JOB_TOKEN"] = TOKEN
    bare_cluster.start(
        "one", "-E", cpu=2, memory="4GiB", labels={"zone": "a"}, secrets_allowlist=["env:JOB_*"],
        log_dir=str(bare_cluster.folder / "kept"),
    )  # fmt: skip
    bare_cluster.start("plain", "--no-node", "-c", "1", "-Q", "celery,mine")
    return bare_cluster


@pytest.fixture(autouse=True)
def _quiet(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.quiet()


NOW = datetime.now(UTC)

BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    *(({"resources": {name: value}}, name) for name in ("cpu", "memory", "gpu", "storage")
      for value in (-1, math.nan, math.inf, "much", 1e6 + 1, [])),
    ({"resources": {"cpu": 0}}, "cpu"),
    ({"resources": {"memory": 0}}, "memory"),
    ({"resources": {"memory": "5MiB"}}, "memory"),
    ({"resources": {"gpu": 1.5}}, "gpu"),
    ({"resources": {"tpu": 1}}, "resources"),
    ({"resources": 4}, "resources"),
    ({"task_type": "huge"}, "task_type"),
    ({"deadline": NOW - timedelta(seconds=60)}, "deadline"),
    ({"deadline": datetime.now()}, "deadline"),
    ({"deadline": timedelta(0)}, "deadline"),
    ({"deadline": 17}, "deadline"),
    ({"sla_multiplier": 1.4}, "sla_multiplier"),
    ({"sla_multiplier": 2.6}, "sla_multiplier"),
    ({"user_id": "x" * 65}, "user_id"),
    ({"user_id": "a\nb"}, "user_id"),
    ({"family": ""}, "family"),
    ({"family": 5}, "family"),
    ({"constraints": ["zone"]}, "constraints"),
    ({"constraints": {"zone": 5}}, "constraints[zone]"),
    ({"target_worker_id": "nobody@t"}, "target_worker_id"),
    ({"unplaceable": "maybe"}, "unplaceable"),
    ({"resources": {"cpu": 1}, "queue": "mine"}, "queue"),
    ({"resources": {"cpu": 1}, "routing_key": "mine"}, "routing_key"),
]  # fmt: skip

BAD_CONTAINERS: list[tuple[dict[str, Any], str]] = [
    ({}, "image"),
    ({"image": ""}, "image"),
    ({"image": "  "}, "image"),
    ({"image": "Debian"}, "image"),
    ({"image": "busybox", "command": "echo hello"}, "command"),
    ({"image": "busybox", "command": []}, "command"),
    ({"image": "busybox", "command": [1]}, "command"),
    ({"image": "busybox", "command": ["a\0b"]}, "command"),
    ({"image": "busybox", "command": ["\ud800"]}, "command"),
    ({"image": "busybox", "env": {"A=B": "c"}}, "env"),
    ({"image": "busybox", "volumes": {"/etc": {"bind": "/x", "mode": "ro"}}}, "volumes"),
    ({"image": "busybox", "inputs": {"/in": "file:///etc"}}, "inputs"),
    ({"image": "busybox", "outputs": {"/out": "s3://somebodys/bucket"}}, "outputs"),
    ({"image": "busybox", "timeout": -1}, "timeout"),
    ({"image": "busybox", "gpus": 1}, "gpus"),
]


@pytest.mark.parametrize(("options", "field"), BAD_OPTIONS)
def test_a_bad_option_is_refused(cluster: Cluster, options: dict[str, Any], field: str) -> None:
    before = cluster.written()
    for submit in (
        lambda: cluster["add"].apply_async((1, 1), **options),
        lambda: cluster.app.send_task("jobs.plain_add", (1, 1), **options),
    ):
        with pytest.raises(InvalidRequest) as refused:
            submit()
        assert refused.value.field.startswith(field)
        assert refused.value.allowed
        assert str(refused.value).startswith(field)
    assert cluster.written() == before


@pytest.mark.parametrize(("kwargs", "field"), BAD_CONTAINERS)
def test_a_bad_container_is_refused(cluster: Cluster, kwargs: dict[str, Any], field: str) -> None:
    before = cluster.written()
    run_container = cluster.app.tasks["cloudai.run_container"]
    for submit in (
        lambda: run_container.apply_async(kwargs=kwargs),
        lambda: cluster.app.send_task("cloudai.run_container", kwargs=kwargs),
    ):
        with pytest.raises(InvalidRequest) as refused:
            submit()
        assert refused.value.field.startswith(field)
    assert cluster.written() == before


def test_positional_arguments_and_time_limits_of_a_container_are_refused(cluster: Cluster) -> None:
    run_container = cluster.app.tasks["cloudai.run_container"]
    before = cluster.written()
    with pytest.raises(InvalidRequest, match="args"):
        run_container.apply_async(("busybox",))
    with pytest.raises(InvalidRequest, match="timeout"):
        run_container.apply_async(kwargs={"image": "busybox"}, time_limit=3)
    assert cluster.written() == before


def test_large_arguments_are_refused(cluster: Cluster) -> None:
    before = cluster.written()
    with pytest.raises(InvalidRequest, match="65536 bytes"):
        cluster["add"].apply_async(("x" * 70_000, 1))
    with pytest.raises(InvalidRequest):
        cluster.app.tasks["cloudai.run_container"].apply_async(kwargs={"image": "busybox", "command": ["x" * 70_000]})
    assert cluster.written() == before


def test_rate_limits_are_refused(cluster: Cluster) -> None:
    @cluster.app.task(name="jobs.limited", resources={"cpu": 1}, rate_limit="1/s", shared=False)
    def limited() -> None: ...

    before = cluster.written()
    with pytest.raises(InvalidRequest, match="rate_limit"):
        limited.delay()
    assert cluster.written() == before


def test_what_no_node_could_hold_is_refused_on_request(cluster: Cluster) -> None:
    before = cluster.written()
    with pytest.raises(Unplaceable, match="one@t"):
        cluster["add"].apply_async((1, 1), resources={"cpu": 64}, unplaceable="reject")
    assert cluster.written() == before


def test_what_no_node_could_hold_waits_by_default(cluster: Cluster) -> None:
    result = cluster["add"].apply_async((1, 1), resources={"cpu": 64})
    assert cluster.state(result.id) == "waiting"
    result.revoke()


def test_an_id_that_is_unfinished_is_refused(cluster: Cluster) -> None:
    result = cluster["add"].apply_async((1, 1), countdown=600)
    before = cluster.written()
    with pytest.raises(DuplicateTask, match=result.id):
        cluster["add"].apply_async((1, 1), task_id=result.id)
    assert cluster.written() == before
    result.revoke()


def test_an_id_that_has_ended_may_be_used_again(cluster: Cluster) -> None:
    result = cluster["add"].apply_async((1, 1))
    assert result.get(timeout=60) == 2
    cluster.until_state(result.id, "succeeded")
    result.forget()
    assert cluster["add"].apply_async((2, 2), task_id=result.id).get(timeout=60) == 4
    cluster.until_state(result.id, "succeeded")
    assert cluster.ends(result.id) == ["succeeded", "succeeded"]


def test_a_plain_task_goes_where_it_always_went(cluster: Cluster) -> None:
    before = cluster.deployment.client.xlen(cluster.deployment.keys.events)
    assert cluster["plain_add"].delay(1, 2).get(timeout=60) == 3
    assert cluster["plain_add"].apply_async((1, 2), queue="mine").get(timeout=60) == 3
    cluster.app.conf.task_routes = {"jobs.plain_add": {"queue": "mine"}}
    try:
        assert cluster["plain_add"].delay(1, 2).get(timeout=60) == 3
    finally:
        cluster.app.conf.task_routes = None
    assert cluster.deployment.client.xlen(cluster.deployment.keys.events) == before


def test_a_plain_task_may_ask_once(cluster: Cluster) -> None:
    result = cluster["plain_add"].apply_async((1, 2), resources={"cpu": 2, "memory": "1GiB"}, task_type="cpu-heavy")
    assert result.get(timeout=60) == 3
    entry = cluster.until_state(result.id, "succeeded")
    assert (entry["cpu"], entry["memory"], entry["type"], entry["node"]) == ("2000", str(2**20), "cpu-heavy", "one@t")


def test_send_task_by_name_takes_the_options(cluster: Cluster) -> None:
    result = cluster.app.send_task(
        "jobs.plain_add", (1, 2), resources=Resources(500, 65536), task_type="mixed", user_id="me"
    )
    assert result.get(timeout=60) == 3
    entry = cluster.until_state(result.id, "succeeded")
    assert (entry["cpu"], entry["type"], entry["user"]) == ("500", "mixed", "me")


def test_task_type_alone_is_a_request(cluster: Cluster) -> None:
    result = cluster["plain_add"].apply_async((1, 2), task_type="memory-heavy")
    assert result.get(timeout=60) == 3
    assert cluster.until_state(result.id, "succeeded")["type"] == "memory-heavy"


def test_a_time_limit_bounds_the_prediction(cluster: Cluster) -> None:
    limited = cluster.app.tasks["jobs.add"].apply_async((1, 2), soft_time_limit=2, time_limit=3)
    unlimited = cluster.app.tasks["jobs.add"].apply_async((1, 2))
    longer = cluster.app.tasks["jobs.add"].apply_many([((1, 2), {})], time_limit=4)[0]
    entries = [cluster.until_state(result.id, "succeeded") for result in (limited, unlimited, longer)]
    assert [json.loads(entry["request"]).get("limit_s") for entry in entries] == [2.0, None, 4.0]
    assert float(entries[0]["tau"]) <= 2.0


def test_options_of_a_submission_win_over_the_task_s(cluster: Cluster) -> None:
    result = cluster["add"].apply_async((1, 2), resources={"cpu": 0.5})
    assert result.get(timeout=60) == 3
    assert cluster.until_state(result.id, "succeeded")["cpu"] == "500"


def test_a_naive_eta_is_in_utc_as_in_celery(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        eta = datetime.now(UTC) + timedelta(hours=2)
        result = cluster["add"].apply_async((1, 1), eta=eta.replace(tzinfo=None))
        arrival = float(cluster.deployment.ledger.entry(result.id)["arrival"])
        result.revoke()
        assert arrival == pytest.approx(eta.timestamp(), abs=1)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_two_applications_in_one_process_keep_apart(cluster: Cluster) -> None:
    other = cluster.new_app({"redis": {"namespace": "other"}})
    result = other.tasks["jobs.add"].delay(1, 1)
    assert other.deployment.ledger.entry(result.id)["state"] == "waiting"
    assert cluster.state(result.id) == ""
    assert cluster["add"].delay(1, 1).get(timeout=60) == 2
    result.revoke()
    assert result.state == "REVOKED"


def test_eager_mode_runs_here_and_still_refuses(cluster: Cluster) -> None:
    app = cluster.new_app()
    app.conf.task_always_eager = True
    before = cluster.written()
    assert app.tasks["jobs.add"].delay(1, 2).get() == 3
    assert app.tasks["jobs.plain_add"].apply_async((1, 2), resources={"cpu": 1}, family="x").get() == 3
    with pytest.raises(InvalidRequest, match="cpu"):
        app.tasks["jobs.add"].apply_async((1, 2), resources={"cpu": -1})
    assert cluster.written() == before


def test_a_beat_entry_takes_resources(cluster: Cluster) -> None:
    entry = {"task": "jobs.plain_add", "schedule": 3600.0, "args": (1, 2), "options": {"resources": {"cpu": 2}}}
    scheduler = Scheduler(cluster.app, schedule={}, lazy=True)
    result = scheduler.apply_async(scheduler.Entry(name="hourly", app=cluster.app, **entry))
    assert result.get(timeout=60) == 3
    assert cluster.until_state(result.id, "succeeded")["cpu"] == "2000"


def test_environment_values_are_shown_nowhere(cluster: Cluster) -> None:
    events: list[Any] = []
    app = cluster.new_app()
    app.conf.task_send_sent_event = True
    secret = "hunter2"
    kwargs = {"image": "busybox", "command": ["sleep", "600"], "env": {"PASSWORD": secret}}
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": events.append})
        with receiver.consumer_context(wakeup=False) as (events_connection, _, _):
            # Any worker's heartbeat tells that we are subscribed.
            while not events:
                events_connection.drain_events(timeout=60)
            result = app.send_task("cloudai.run_container", kwargs=kwargs)
            end = time.monotonic() + 60
            # The producer tells of it once it has been placed, so perhaps after the node has begun.
            wanted = {"task-sent", "task-received", "task-started"}
            while not wanted <= {e["type"] for e in events if e.get("uuid") == result.id}:
                events_connection.drain_events(timeout=60)
                assert time.monotonic() < end, events
    found = [e for e in events if e.get("uuid") == result.id]
    message = cluster.deployment.ledger.message(result.id)
    assert message is not None
    inspected = until(lambda: app.control.inspect(destination=["one@t"], timeout=5).active(), "the node answers", 60)
    assert "PASSWORD" in str(inspected)
    for place in (str(found), str(inspected), str(cluster.events(result.id)), str(json.loads(message)["headers"])):
        assert secret not in place
    result.revoke(terminate=True)
    cluster.until_state(result.id, "cancelled")


def test_the_value_of_a_secret_is_nowhere(cluster: Cluster) -> None:
    script = f'[ "${{#TOKEN}}" = {len(TOKEN)} ] && echo it has one; exit $LEAVES'
    results = [
        cluster.app.send_task(
            "cloudai.run_container",
            kwargs={
                "image": "busybox", "command": ["sh", "-c", script], "env": {"LEAVES": code},
                "secrets": {"TOKEN": reference},
            },
        )
        for code, reference in (("0", "env:JOB_TOKEN"), ("3", "env:JOB_TOKEN"), ("0", "env:JOBS_HEARD"))
    ]  # fmt: skip
    assert results[0].get(timeout=60)["stdout_tail"] == "it has one\n"
    told = [str(results[0].get())]
    for result, error in zip(results[1:], ("exit code 3", "env:JOBS_HEARD"), strict=True):
        with pytest.raises(ContainerError, match=error) as failure:
            result.get(timeout=60)
        told.append(f"{failure.value} {failure.value.args}")
    for result in results:
        ledger = cluster.deployment.ledger
        message = json.loads(ledger.message(result.id) or "{}")
        told += [str(cluster.events(result.id)), str(ledger.entry(result.id)), str(message)]
        told.append(base64.b64decode(message.get("body", "")).decode())
        told.append(str(task_report(cluster.deployment, result.id)))
    # What Redis was ever told, the logs of node and worker, the kept output, and what these files are called.
    files: dict[str, bytes] = {}
    for path in cluster.folder.rglob("*"):
        with suppress(OSError):  # a folder, a socket, or gone meanwhile
            files[str(path)] = path.read_bytes()
    assert [path for path in files if results[0].id in path]
    assert [path for path, content in files.items() if results[0].id.encode() in content]
    assert not [place for place in told if TOKEN in place]
    assert not [path for path, content in files.items() if TOKEN in path or TOKEN.encode() in content]


def test_closing_is_possible_more_than_once(cluster: Cluster) -> None:
    app = cluster.new_app()
    assert app.tasks["jobs.add"].delay(1, 1).get(timeout=60) == 2
    close(app)
