"""A node that starts while Redis is away joins when it is there."""

from __future__ import annotations

from ...waiting import until
from .cluster import Cluster


def test_a_node_that_starts_before_redis_joins_when_it_answers(bare_cluster: Cluster) -> None:
    bare_cluster.valkey.stop()
    node = bare_cluster.start("early", cpu=1, wait=False)
    until(lambda: "redis-away node=early@t" in node.log, "it says that it waits", timeout_s=60)
    bare_cluster.valkey.start()
    assert bare_cluster["add"].delay(1, 2).get(timeout=60) == 3
    node.stop()


def test_a_node_that_waits_for_redis_can_be_stopped(bare_cluster: Cluster) -> None:
    bare_cluster.valkey.stop()
    node = bare_cluster.start("never", cpu=1, wait=False)
    try:
        until(lambda: "redis-away node=never@t" in node.log, "it says that it waits", timeout_s=60)
        node.process.terminate()
        node.ended(60)
    finally:
        bare_cluster.valkey.start()
