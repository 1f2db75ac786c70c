"""A Redis that has reached maxmemory: new work is refused, accepted work ends and is told of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, chord
from celery.exceptions import TaskRevokedError

from cloudai.errors import ClusterFull

from ...poison import Where, give, of
from ...waiting import until
from .cluster import Cluster, lines


@pytest.fixture
def cluster(bare_cluster: Cluster) -> Iterator[Cluster]:
    yield bare_cluster
    full(bare_cluster, False)
    assert bare_cluster["add"].delay(2, 2).get(timeout=60) == 4
    bare_cluster.quiet()


def full(cluster: Cluster, yes: bool) -> None:
    cluster.deployment.client.config_set("maxmemory", 1 if yes else 0)


def test_accepted_work_ends_and_new_work_is_refused(cluster: Cluster, witness: Path, gate: Path) -> None:
    node = cluster.start("one", cpu=3)
    add, hold, total = cluster["add"], cluster["hold"], cluster["total"]
    failed = cluster["fail"].si("no").set(link_error=cluster["heard"].s())
    chained = chain(hold.si(str(witness), str(gate)), add.si(3, 4)).apply_async()
    chorded = chord([add.si(1, 2), chain(hold.si(str(witness), str(gate)), add.si(3, 4))], total.s()).apply_async()
    step = chord([add.si(1, 2), add.si(3, 4)], total.s())
    fanned = chain(hold.si(str(witness), str(gate)), step).apply_async()
    until(lambda: len(lines(witness)) == 3)
    retried = cluster["retry"].delay(2, 0)
    broken = failed.apply_async()
    cancelled = add.delay(1, 1)
    for poison in of(Where.BROADCAST):
        give(cluster.deployment.client, poison, "one@t")
    full(cluster, True)
    with pytest.raises(ClusterFull, match="maxmemory"):
        add.delay(1, 1)
    cancelled.revoke()
    with pytest.raises(TaskRevokedError):
        cancelled.get(timeout=60)
    gate.touch()
    # What follows in a chain or a chord, or is tried again, was accepted with its first task.
    assert chained.get(timeout=60) == 7
    assert chorded.get(timeout=60) == 10
    assert fanned.get(timeout=60) == 10
    assert retried.get(timeout=60)["retries"] == 2
    with pytest.raises(ValueError, match="no"):
        broken.get(timeout=60)
    assert node.process.poll() is None
    node.stop()
    # A node may start meanwhile.
    cluster.start("two", cpu=2)


def test_a_server_that_takes_no_writes_is_waited_for(cluster: Cluster) -> None:
    node = cluster.start("three", cpu=1, lease_s=60.0)
    cluster.deployment.client.config_set("min-replicas-to-write", 1)
    until(lambda: "Connection to broker lost" in node.log, "the worker has asked for work, and was refused", 60)
    cluster.deployment.client.config_set("min-replicas-to-write", 0)
    assert cluster["add"].delay(1, 2).get(timeout=60) == 3
    assert node.process.poll() is None
