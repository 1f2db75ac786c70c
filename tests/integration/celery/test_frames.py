"""What arrives that our producer did not send: frames that cannot be read, and whole messages of stock producers."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import NotRegistered
from kombu import Connection

from cloudai.names import PLACE_QUEUE, node_queue

from .cluster import Cluster, WorkerProcess, until


@pytest.fixture(scope="module")
def node(bare_cluster: Cluster) -> WorkerProcess:
    return bare_cluster.start("one", cpu=2)


@pytest.fixture
def cluster(bare_cluster: Cluster, node: WorkerProcess) -> Iterator[Cluster]:
    yield bare_cluster
    # Whatever came, the node lives and works.
    assert node.process.poll() is None, node.log
    assert bare_cluster["add"].delay(2, 2).get(timeout=20) == 4
    bare_cluster.quiet()


def dead_letters(cluster: Cluster) -> list[dict[str, Any]]:
    keys, client = cluster.deployment.keys, cluster.deployment.client
    return [json.loads(letter) for letter in client.lrange(keys.dead_letters, 0, -1)]


def message(task: str, *args: Any, body: str | None = None, **headers: Any) -> dict[str, Any]:
    """A message as any Celery producer makes one."""
    task_id = headers.pop("id", None) or str(uuid.uuid4())
    encoded = base64.b64encode(json.dumps([list(args), {}, {}]).encode()).decode()
    return {
        "body": encoded if body is None else body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0, **headers},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": PLACE_QUEUE},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


#: Where kombu publishes remote control.
BROADCAST = "/0.celery.pidbox"

WITHOUT_SHAPE = [
    b"", b"\xff\xfe\x00", b"{", b"[]", b"17", b"null", b"no such task", b'"text"', b"{}", b'{"body": 1}',
    b'{"body": "", "properties": 5, "headers": {}}',
    b'{"body": "", "properties": {"delivery_info": []}, "headers": {}}',
    b'{"body": "", "properties": {"delivery_info": {}, "delivery_tag": "x"}, "headers": {}}',
    b'{"body": 5, "properties": {"delivery_info": {"exchange": "", "routing_key": "a"}, "delivery_tag": "x"},'
    b' "headers": {}}',
    b'{"body": "!", "properties": {"delivery_info": {"exchange": "", "routing_key": "a"}, "delivery_tag": "x",'
    b' "body_encoding": "base64"}, "headers": [1]}',
    b"{" * 5000, b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("queue", [node_queue("one@t"), PLACE_QUEUE])
def test_frames_of_no_use_go_to_the_dead_letters(cluster: Cluster, queue: str) -> None:
    before = cluster.deployment.ledger.totals().get("dead_letters_total", 0)
    cluster.deployment.client.lpush(queue, *WITHOUT_SHAPE)
    until(
        lambda: cluster.deployment.ledger.totals().get("dead_letters_total", 0) == before + len(WITHOUT_SHAPE),
        "all are buried",
    )
    letter = dead_letters(cluster)[0]
    assert letter["queue"] == queue
    assert letter["reason"]


@pytest.mark.parametrize("frame", [b"\xff", b"{", b"5", b"{}", b'{"body": "x", "properties": {}}'])
def test_broadcasts_of_no_use_are_survived(cluster: Cluster, frame: bytes) -> None:
    assert cluster.deployment.client.publish(BROADCAST, frame) == 1
    assert cluster.app.control.ping(timeout=5, destination=["one@t"])


def test_a_broadcast_with_an_unreadable_body_is_survived(cluster: Cluster) -> None:
    for body in ("!!", base64.b64encode(b"{").decode(), base64.b64encode(b"[1]").decode()):
        assert cluster.deployment.client.publish(BROADCAST, json.dumps(message("x", body=body))) == 1
    assert cluster.app.control.ping(timeout=5, destination=["one@t"])


def test_a_whole_message_of_a_stock_producer_is_placed(cluster: Cluster) -> None:
    stock = Celery("stock", broker=cluster.valkey.url, backend=cluster.valkey.url, set_as_current=False)
    sent = message("jobs.add", 20, 22)
    with Connection(cluster.valkey.url) as connection:
        connection.default_channel.client.lpush(PLACE_QUEUE, json.dumps(sent))
    try:
        assert stock.AsyncResult(sent["headers"]["id"]).get(timeout=20) == 42
        entry = cluster.until_state(sent["headers"]["id"], "succeeded")
        assert (entry["cpu"], entry["type"]) == ("1000", "mixed")
    finally:
        stock.backend.result_consumer.stop()
        stock.backend.client.close()
        stock.close()


def test_a_stock_producer_may_bring_a_request(cluster: Cluster) -> None:
    request = {"cpu_milli": 500, "memory_kib": 65536, "task_type": "cpu-heavy", "family": "stock"}
    sent = message("jobs.add", 1, 1, cloudai={"v": 1, "req": request})
    cluster.deployment.client.lpush(PLACE_QUEUE, json.dumps(sent))
    assert cluster.app.AsyncResult(sent["headers"]["id"]).get(timeout=20) == 2
    entry = cluster.until_state(sent["headers"]["id"], "succeeded")
    assert (entry["cpu"], entry["type"], entry["family"]) == ("500", "cpu-heavy", "stock")


def test_the_same_frame_twice_is_one_task(cluster: Cluster, tmp_path: Any) -> None:
    sent = json.dumps(message("jobs.mark", str(tmp_path / "witness"), "ran"))
    cluster.deployment.client.lpush(PLACE_QUEUE, sent, sent)
    task_id = json.loads(sent)["headers"]["id"]
    assert cluster.app.AsyncResult(task_id).get(timeout=20) == "ran"
    cluster.quiet()
    assert (tmp_path / "witness").read_text() == "ran\n"


@pytest.mark.parametrize(
    "header",
    [
        {"cloudai": 5},
        {"cloudai": {"v": 99}},
        {"cloudai": {"v": 1, "req": {"cpu_milli": -1}}},
        {"cloudai": {"v": 1, "req": {"task_type": "huge"}}},
        {"cloudai": {"v": 1, "req": {"target_worker_id": "nobody@t"}}},
        {"expires": "never"},
    ],
)
def test_a_whole_message_that_is_refused_tells_its_caller(cluster: Cluster, header: dict[str, Any]) -> None:
    sent = message("jobs.add", 1, 1, **header)
    before = cluster.deployment.ledger.totals()["dead_letters"]
    cluster.deployment.client.lpush(PLACE_QUEUE, json.dumps(sent))
    result = cluster.app.AsyncResult(sent["headers"]["id"])
    until(lambda: result.state == "FAILURE")
    assert cluster.deployment.ledger.totals()["dead_letters"] == before + 1


def test_a_whole_message_in_the_node_s_own_list_runs_as_usual(cluster: Cluster) -> None:
    sent = message("jobs.plain_add", 3, 4)
    sent["properties"]["delivery_info"]["routing_key"] = node_queue("one@t")
    cluster.deployment.client.lpush(node_queue("one@t"), json.dumps(sent))
    assert cluster.app.AsyncResult(sent["headers"]["id"]).get(timeout=20) == 7


@pytest.mark.parametrize("body", ["!!!!", base64.b64encode(b"{").decode(), base64.b64encode(b"[1, 2]").decode(), ""])
def test_a_placed_message_with_a_malformed_body_fails(cluster: Cluster, body: str) -> None:
    sent = message("jobs.add", body=body)
    cluster.deployment.client.lpush(PLACE_QUEUE, json.dumps(sent))
    result = cluster.app.AsyncResult(sent["headers"]["id"])
    until(lambda: result.state == "FAILURE")


def test_an_unknown_task_fails_and_its_chord_hears(cluster: Cluster) -> None:
    result = cluster.app.send_task("jobs.nowhere", resources={"cpu": 1})
    with pytest.raises(NotRegistered):
        result.get(timeout=20)
    cluster.until_state(result.id, "failed")
