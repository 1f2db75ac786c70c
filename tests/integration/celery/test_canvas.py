"""Groups, chains, chords, links and errbacks, and tasks that end without a worker among them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError, TaskRevokedError

from ...waiting import until
from .cluster import Cluster, lines


@pytest.fixture(scope="module")
def cluster(bare_cluster: Cluster) -> Cluster:
    bare_cluster.start("one", cpu=2)
    return bare_cluster


@pytest.fixture(autouse=True)
def _quiet(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.quiet()


@pytest.fixture
def full(cluster: Cluster, witness: Path, gate: Path) -> Iterator[None]:
    """Every core of the cluster is taken until the test is over."""
    held = [cluster["hold"].delay(str(witness), str(gate)) for _ in range(2)]
    until(lambda: len(lines(witness)) == 2)
    yield
    gate.touch()
    for one in held:
        one.get(timeout=60)


def held_back(cluster: Cluster, gate: Path, results: list[Any]) -> None:
    """They wait while the cluster is full; then it is not."""
    assert {cluster.state(one.id) for one in results} == {"waiting"}
    gate.touch()
    for one in results:
        one.get(timeout=60)


@pytest.mark.usefixtures("full")
def test_priority_orders_equals(cluster: Cluster, witness: Path, gate: Path) -> None:
    whole = {"resources": {"cpu": 2}, "deadline": datetime.now(UTC) + timedelta(hours=1)}
    results = [
        cluster["mark"].apply_async((str(witness), f"priority {n}"), priority=n, **whole) for n in (9, 3, 0, 6)
    ]
    held_back(cluster, gate, results)
    assert lines(witness)[2:] == [f"priority {n}" for n in (0, 3, 6, 9)]


@pytest.mark.usefixtures("full")
def test_an_earlier_deadline_wins_over_priority(cluster: Cluster, witness: Path, gate: Path) -> None:
    now = datetime.now(UTC)
    late, soon = (
        cluster["mark"].apply_async(
            (str(witness), name), priority=n, resources={"cpu": 2}, deadline=now + timedelta(hours=hours)
        )
        for name, n, hours in (("late", 0, 2), ("soon", 9, 1))
    )
    held_back(cluster, gate, [late, soon])
    assert lines(witness)[2:] == ["soon", "late"]


def placed(cluster: Cluster, task_id: str) -> bool:
    """Whether RTS sent it to a node."""
    return any(event["event"] == "placed" for event in cluster.events(task_id))


def test_group(cluster: Cluster) -> None:
    result = group(cluster["add"].s(i, i) for i in range(6)).apply_async()
    assert result.get(timeout=60) == [0, 2, 4, 6, 8, 10]
    assert all(placed(cluster, one.id) for one in result)


def test_chain_places_each_link_when_its_turn_comes(cluster: Cluster) -> None:
    result = chain(cluster["add"].s(1, 2), cluster["add"].s(10), cluster["add"].s(100)).apply_async()
    assert result.get(timeout=60) == 113
    assert placed(cluster, result.id)
    assert placed(cluster, result.parent.id)


def test_a_long_chain_is_no_large_argument(cluster: Cluster, full: None) -> None:
    links = [cluster["add"].s(1) for _ in range(250)]
    last = chain(cluster["add"].s(1, 0), *links).apply_async()
    first = last
    while first.parent is not None:
        first = first.parent
    assert cluster.state(first.id) == "waiting"
    first.revoke()


def test_chord(cluster: Cluster) -> None:
    result = chord([cluster["add"].s(i, 1) for i in range(4)])(cluster["total"].s())
    assert result.get(timeout=60) == 10
    assert placed(cluster, result.id)


def test_chord_with_a_failing_member(cluster: Cluster) -> None:
    result = chord([cluster["add"].s(1, 1), cluster["fail"].s("broken")])(cluster["total"].s())
    until(lambda: result.state == "FAILURE")
    assert isinstance(result.result, ChordError)
    assert "broken" in str(result.result)


def test_link_is_placed(cluster: Cluster) -> None:
    link = cluster["add"].s(5)
    link.freeze()
    assert cluster["add"].apply_async((1, 1), link=link).get(timeout=60) == 2
    assert cluster.app.AsyncResult(link.id).get(timeout=60) == 7
    assert placed(cluster, link.id)


def test_what_a_signature_asks_for_travels_with_it(cluster: Cluster) -> None:
    link = (
        cluster["plain_add"]
        .s(5)
        .set(
            resources={"cpu": 2, "memory": "1GiB"}, task_type="cpu-heavy", deadline=timedelta(hours=1), family="linked"
        )
    )
    result = chain(cluster["add"].s(1, 1), link).apply_async()
    assert result.get(timeout=60) == 7
    entry = cluster.deployment.ledger.entry(result.id)
    assert (entry["cpu"], entry["type"], entry["family"]) == ("2000", "cpu-heavy", "linked")
    assert float(entry["deadline"]) - float(entry["arrival"]) == pytest.approx(3600, abs=5)


def test_link_error_hears_of_a_failure(cluster: Cluster) -> None:
    result = cluster["fail"].apply_async(("broken",), link_error=cluster["heard"].s())
    with pytest.raises(ValueError, match="broken"):
        result.get(timeout=60)
    until(lambda: f"{result.id} ValueError" in lines(cluster.heard))


@pytest.mark.usefixtures("full")
def test_errbacks_hear_of_expiry_and_of_revocation_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever settles calls such an errback in its own process: the node's sweep, or the producer that revokes.
    monkeypatch.setenv("JOBS_HEARD", str(cluster.heard))
    errback = cluster["heard"].s()
    expired = cluster["add"].apply_async((1, 1), expires=0.4, link_error=errback)
    revoked = cluster["add"].apply_async((1, 1), link_error=errback)
    revoked.revoke()
    for one in (expired, revoked):
        with pytest.raises(TaskRevokedError):
            one.get(timeout=60)
        until(lambda one=one: f"{one.id} TaskRevokedError" in lines(cluster.heard))
    cluster.app.control.ping(timeout=1)
    assert len([line for line in lines(cluster.heard) if expired.id in line or revoked.id in line]) == 2


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("way", ["expires", "revoked"])
def test_a_chord_hears_of_a_member_that_never_ran(cluster: Cluster, way: str, gate: Path) -> None:
    doomed = cluster["add"].s(2, 2)
    doomed.freeze()
    if way == "expires":
        doomed.set(expires=0.4)
    body = chord([doomed, cluster["add"].s(1, 1)], app=cluster.app)(cluster["total"].s())
    if way == "revoked":
        cluster.app.control.revoke(doomed.id)
    until(lambda: cluster.app.AsyncResult(doomed.id).state == "REVOKED")
    gate.touch()
    until(lambda: body.state == "FAILURE")
    assert isinstance(body.result, ChordError)


def test_the_command_alone_reaches_a_waiting_task(cluster: Cluster, full: None) -> None:
    """Flower, or a producer on stock Celery, sends no more than this."""
    result = cluster["add"].apply_async((1, 1), link_error=cluster["heard"].s())
    cluster.app.control.broadcast("revoke", {"task_id": result.id})
    with pytest.raises(TaskRevokedError):
        result.get(timeout=60)
    assert cluster.until_state(result.id, "cancelled")["reason"] == "revoked"
    until(lambda: f"{result.id} TaskRevokedError" in lines(cluster.heard))
