"""Every way out of a request, on a node with threads: the result, one finish, the reservation given back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.exceptions import TaskRevokedError, WorkerLostError

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


def test_success(cluster: Cluster) -> None:
    result = cluster["add"].delay(1, 2)
    assert result.get(timeout=60) == 3
    assert cluster.until_state(result.id, "succeeded")["sla_success"] == "1"
    assert [e["event"] for e in cluster.events(result.id)] == ["submitted", "placed", "claimed", "finished"]


def test_failure(cluster: Cluster) -> None:
    result = cluster["fail"].delay("broken")
    with pytest.raises(ValueError, match="broken"):
        result.get(timeout=60)
    assert cluster.until_state(result.id, "failed")["sla_success"] == "0"


def test_sys_exit_in_a_thread_is_a_lost_worker(cluster: Cluster) -> None:
    result = cluster["leave"].delay()
    with pytest.raises(WorkerLostError):
        result.get(timeout=60)
    cluster.until_state(result.id, "failed")


def test_reject_with_requeue_runs_again(cluster: Cluster, witness: Path) -> None:
    result = cluster["reject"].delay(str(witness), 2, True)
    assert result.get(timeout=60) == "taken"
    assert len(lines(witness)) == 3
    assert cluster.until_state(result.id, "succeeded")["attempt"] == "3"


def test_reject_without_requeue_fails(cluster: Cluster, witness: Path) -> None:
    result = cluster["reject"].delay(str(witness), 1, False)
    with pytest.raises(Exception, match="not now"):
        result.get(timeout=60)
    cluster.until_state(result.id, "failed")


def test_ignore_keeps_the_state_that_the_task_stored(cluster: Cluster) -> None:
    result = cluster["ignore"].delay()
    cluster.until_state(result.id, "succeeded")
    assert result.state == "SHELVED"


@pytest.mark.parametrize("countdown", [0, 0.3])
def test_retry_keeps_deadline_and_request(cluster: Cluster, countdown: float) -> None:
    result = cluster["retry"].apply_async((2, countdown), resources={"cpu": 2}, family="sheep", user_id="me")
    submitted = cluster.deployment.ledger.entry(result.id)
    seen = result.get(timeout=60)
    assert seen["retries"] == 2
    assert seen["attempt"] == 3
    assert seen["deadline"] == float(submitted["deadline"])
    assert seen["req"]["cpu_milli"] == 2000
    assert (seen["req"]["family"], seen["req"]["user_id"]) == ("sheep", "me")


def test_retry_may_ask_for_more(cluster: Cluster) -> None:
    result = cluster["retry"].apply_async((1, 0, {"resources": {"memory": "1GiB"}}), family="sheep")
    seen = result.get(timeout=60)
    assert seen["req"]["memory_kib"] == 2**20
    assert seen["req"]["family"] == "sheep"


def test_autoretry(cluster: Cluster, witness: Path) -> None:
    assert cluster["flaky"].delay(str(witness)).get(timeout=60) == 3


def test_replace(cluster: Cluster) -> None:
    assert cluster["replaced"].delay(4).get(timeout=60) == 5


def test_replace_by_a_chain(cluster: Cluster) -> None:
    assert cluster["replaced_by_chain"].delay(4).get(timeout=60) == 15


def test_expires_before_it_can_start(cluster: Cluster, witness: Path, gate: Path) -> None:
    running = [cluster["hold"].delay(str(witness), str(gate)) for _ in range(2)]
    until(lambda: len(lines(witness)) == 2)
    result = cluster["add"].apply_async((1, 1), expires=0.5)
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=60)
    assert cluster.state(result.id) == "expired"
    gate.touch()
    assert [r.get(timeout=60) for r in running] == ["one@t", "one@t"]


def test_revoke_while_it_waits(cluster: Cluster, witness: Path, gate: Path) -> None:
    running = [cluster["hold"].delay(str(witness), str(gate)) for _ in range(2)]
    until(lambda: len(lines(witness)) == 2)
    result = cluster["mark"].delay(str(witness), "must not run")
    assert cluster.state(result.id) == "waiting"
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=60)
    assert cluster.state(result.id) == "cancelled"
    gate.touch()
    for one in running:
        one.get(timeout=60)
    assert "must not run" not in lines(witness)


def test_revoke_while_it_is_delayed(cluster: Cluster, witness: Path) -> None:
    result = cluster["mark"].apply_async((str(witness), "must not run"), countdown=600)
    assert cluster.state(result.id) == "waiting"
    result.revoke()
    assert result.state == "REVOKED"
    assert cluster.state(result.id) == "cancelled"


def test_a_job_that_is_stopped_while_it_starts_stays_revoked(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    cluster.environment["SLOW_TO_START"] = str(gate)
    node = cluster.start("slow-to-start", project="slow_to_start", labels={"slow": "yes"})
    result = cluster.app.tasks["cloudai.run_container"].apply_async(
        kwargs={"image": "none", "command": ["sleep", "600"]},
        resources={"cpu": 1, "memory": "64MiB"},
        constraints={"slow": "yes"},
    )
    until(gate.with_suffix(".asked").exists, "it is about to be STARTED")
    result.revoke(terminate=True)
    until(lambda: cluster.app.backend.get_state(result.id) == "REVOKED", "its caller sees that it was stopped")
    gate.touch()
    cluster.until_state(result.id, "cancelled")
    assert cluster.app.backend.get_state(result.id) == "REVOKED"
    node.stop()


def test_revoke_without_terminate_lets_it_finish(cluster: Cluster, witness: Path, gate: Path) -> None:
    result = cluster["hold"].delay(str(witness), str(gate))
    until(lambda: lines(witness))
    result.revoke()
    gate.touch()
    assert result.get(timeout=60) == "one@t"
    cluster.until_state(result.id, "succeeded")


def test_a_countdown_is_kept_and_holds_nothing(cluster: Cluster, witness: Path) -> None:
    result = cluster["mark"].apply_async((str(witness), "ran"), countdown=0.7)
    entry = cluster.deployment.ledger.entry(result.id)
    assert entry["state"] == "waiting"
    assert float(entry["arrival"]) - float(entry["submitted"]) == pytest.approx(0.7, abs=0.1)
    assert result.get(timeout=60) == "ran"
    claimed = next(e for e in cluster.events(result.id) if e["event"] == "claimed")
    assert float(claimed["at"]) >= float(entry["arrival"])
