"""What arrives that our producer did not send: frames that cannot be read, and whole messages of stock producers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import NotRegistered
from kombu import Connection

from cloudai.names import PLACE_QUEUE, node_queue

from ...poison import BROADCAST, Fate, Where, give, message, of, poisons
from ...waiting import until
from .cluster import Cluster, WorkerProcess


@pytest.fixture(scope="module")
def node(bare_cluster: Cluster) -> WorkerProcess:
    return bare_cluster.start("one", cpu=2)


@pytest.fixture
def cluster(bare_cluster: Cluster, node: WorkerProcess) -> Iterator[Cluster]:
    yield bare_cluster
    # Whatever came, the node lives and works.
    assert node.process.poll() is None, node.log
    assert bare_cluster["add"].delay(2, 2).get(timeout=60) == 4
    bare_cluster.quiet()


def dead_letters(cluster: Cluster) -> list[dict[str, Any]]:
    keys, client = cluster.deployment.keys, cluster.deployment.client
    return [json.loads(letter) for letter in client.lrange(keys.dead_letters, 0, -1)]


@pytest.mark.parametrize("queue", [node_queue("one@t"), PLACE_QUEUE])
def test_frames_of_no_use_go_to_the_dead_letters(cluster: Cluster, queue: str) -> None:
    before = cluster.deployment.ledger.totals().get("dead_letters_total", 0)
    frames = [poison.frame for poison in of(Where.ANY_LIST)]
    cluster.deployment.client.lpush(queue, *frames)
    until(
        lambda: cluster.deployment.ledger.totals().get("dead_letters_total", 0) == before + len(frames),
        "all are buried",
    )
    letter = dead_letters(cluster)[0]
    assert letter["queue"] == queue
    assert letter["reason"]


def test_broadcasts_of_no_use_are_survived(cluster: Cluster) -> None:
    for poison in of(Where.BROADCAST):
        assert cluster.deployment.client.publish(BROADCAST, poison.frame) == 1
    until(lambda: cluster.app.control.ping(timeout=5, destination=["one@t"]), "it answers again", 60)


def test_messages_of_no_use_in_the_node_s_own_list_are_survived(cluster: Cluster) -> None:
    for poison in of(Where.NODE):
        give(cluster.deployment.client, poison, "one@t")
    until(lambda: cluster.deployment.client.llen(node_queue("one@t")) == 0)


def test_whole_messages_of_no_use_tell_their_callers(cluster: Cluster) -> None:
    given = [poison for poison in of(Where.PLACE) if poison.fate is Fate.FAILS]
    for poison in given:
        give(cluster.deployment.client, poison, "one@t")
    for poison in given:
        result = cluster.app.AsyncResult(poison.task_id)
        until(lambda result=result: result.state == "FAILURE", f"{poison.kind} fails")


def test_messages_without_a_usable_id_are_buried(cluster: Cluster) -> None:
    before = cluster.deployment.ledger.totals().get("dead_letters_total", 0)
    given = [poison for poison in of(Where.PLACE) if poison.fate is Fate.BURIED]
    for poison in given:
        give(cluster.deployment.client, poison, "one@t")
    until(
        lambda: cluster.deployment.ledger.totals().get("dead_letters_total", 0) == before + len(given),
        "all are buried",
    )


def test_there_are_kinds_enough() -> None:
    kinds = [poison.kind for poison in poisons()]
    assert len(kinds) == len(set(kinds)) >= 19


def test_a_whole_message_of_a_stock_producer_is_placed(cluster: Cluster) -> None:
    stock = Celery("stock", broker=cluster.valkey.url, backend=cluster.valkey.url, set_as_current=False)
    sent = message("jobs.add", 20, 22)
    with Connection(cluster.valkey.url) as connection:
        connection.default_channel.client.lpush(PLACE_QUEUE, json.dumps(sent))
    try:
        assert stock.AsyncResult(sent["headers"]["id"]).get(timeout=60) == 42
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
    assert cluster.app.AsyncResult(sent["headers"]["id"]).get(timeout=60) == 2
    entry = cluster.until_state(sent["headers"]["id"], "succeeded")
    assert (entry["cpu"], entry["type"], entry["family"]) == ("500", "cpu-heavy", "stock")


def test_the_same_frame_twice_is_one_task(cluster: Cluster, tmp_path: Any) -> None:
    sent = json.dumps(message("jobs.mark", str(tmp_path / "witness"), "ran"))
    cluster.deployment.client.lpush(PLACE_QUEUE, sent, sent)
    task_id = json.loads(sent)["headers"]["id"]
    assert cluster.app.AsyncResult(task_id).get(timeout=60) == "ran"
    cluster.quiet()
    assert (tmp_path / "witness").read_text() == "ran\n"


def test_a_refused_message_is_one_dead_letter(cluster: Cluster) -> None:
    before = cluster.deployment.ledger.totals()["dead_letters_total"]
    sent = message("jobs.add", 1, 1, cloudai={"v": 99})
    cluster.deployment.client.lpush(PLACE_QUEUE, json.dumps(sent))
    result = cluster.app.AsyncResult(sent["headers"]["id"])
    until(lambda: result.state == "FAILURE")
    assert cluster.deployment.ledger.totals()["dead_letters_total"] == before + 1


def test_a_whole_message_in_the_node_s_own_list_runs_as_usual(cluster: Cluster) -> None:
    sent = message("jobs.plain_add", 3, 4)
    sent["properties"]["delivery_info"]["routing_key"] = node_queue("one@t")
    cluster.deployment.client.lpush(node_queue("one@t"), json.dumps(sent))
    assert cluster.app.AsyncResult(sent["headers"]["id"]).get(timeout=60) == 7


def test_an_unknown_task_fails_and_its_chord_hears(cluster: Cluster) -> None:
    result = cluster.app.send_task("jobs.nowhere", resources={"cpu": 1})
    with pytest.raises(NotRegistered):
        result.get(timeout=60)
    cluster.until_state(result.id, "failed")
