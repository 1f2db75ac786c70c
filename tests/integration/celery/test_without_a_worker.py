"""What waits needs no worker to wait in, and what ends without one reaches its result, its errbacks and its chord."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chord
from celery.exceptions import ChordError, WorkerLostError

from ...waiting import until
from .cluster import Cluster, lines


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Where a task is not started anew after its node was lost."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), {"limits": {"max_attempts": 1}})
    try:
        yield made
    finally:
        made.stop()


def test_a_countdown_outlives_the_node(cluster: Cluster, witness: Path) -> None:
    node = cluster.start("first", cpu=1)
    delayed = cluster["mark"].apply_async((str(witness), "delayed"), countdown=3)
    retried = cluster["retry"].delay(1, 3)
    until(lambda: [e for e in cluster.events(retried.id) if e.get("reason") == "retry"], "the retry waits")
    assert {cluster.state(delayed.id), cluster.state(retried.id)} == {"waiting"}
    node.kill()
    cluster.start("second", cpu=1)
    assert delayed.get(timeout=60) == "delayed"
    assert retried.get(timeout=60)["retries"] == 1
    for result in (delayed, retried):
        last = [event for event in cluster.events(result.id) if event["event"] == "claimed"][-1]
        assert last["node"] == "second@t"
    assert lines(witness) == ["delayed"]
    claimed = next(event for event in cluster.events(delayed.id) if event["event"] == "claimed")
    assert float(claimed["at"]) >= float(cluster.deployment.ledger.entry(delayed.id)["arrival"])


def test_a_task_that_is_lost_for_good_tells_its_caller_its_errback_and_its_chord(
    cluster: Cluster, witness: Path
) -> None:
    victim = cluster.start("victim", cpu=1, labels={"victim": "yes"})
    doomed = cluster["kill_node"].s(str(witness)).set(constraints={"victim": "yes"})
    doomed.link_error(cluster["heard"].s())
    doomed.freeze()
    body = chord([doomed, cluster["add"].s(1, 1)], app=cluster.app)(cluster["total"].s())
    victim.ended(60)
    result = cluster.app.AsyncResult(doomed.id)
    with pytest.raises(WorkerLostError, match="victim@t"):
        result.get(timeout=60)
    assert cluster.until_state(doomed.id, "lost")["attempt"] == "1"
    until(lambda: body.state == "FAILURE", "the chord has heard", 60)
    assert isinstance(body.result, ChordError)
    until(lambda: f"{doomed.id} WorkerLostError" in lines(cluster.heard), "the errback has heard", 60)
    assert lines(witness) == ["ran"]
    assert cluster.ends(doomed.id) == ["lost"]
