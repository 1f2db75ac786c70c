"""The ways out of a request that only pool processes have: time limits, termination, a lost process."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, WorkerLostError

from cloudai.containers.errors import EngineUnavailable
from cloudai.errors import Unplaceable
from cloudai.names import node_queue

from ...poison import message
from ...waiting import until
from .cluster import Cluster, lines


@pytest.fixture(scope="module")
def cluster(bare_cluster: Cluster) -> Cluster:
    bare_cluster.start("forks", "-P", "prefork", "-c", "2", cpu=2)
    return bare_cluster


@pytest.fixture(autouse=True)
def _quiet(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.quiet()


def test_success(cluster: Cluster) -> None:
    assert cluster["add"].delay(1, 2).get(timeout=60) == 3


def test_a_lost_pool_process_fails_the_task(cluster: Cluster) -> None:
    result = cluster["die"].delay()
    with pytest.raises(WorkerLostError):
        result.get(timeout=60)
    cluster.until_state(result.id, "failed")


def test_a_lost_pool_process_may_be_a_reason_to_run_again(cluster: Cluster, witness: Path) -> None:
    result = cluster["die_again"].delay(str(witness))
    assert result.get(timeout=60) == "lived"
    assert cluster.until_state(result.id, "succeeded")["attempt"] == "2"


def test_hard_time_limit(cluster: Cluster, witness: Path) -> None:
    result = cluster["slow"].apply_async((str(witness),), time_limit=0.5)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=60)
    cluster.until_state(result.id, "timed_out")


def test_soft_time_limit(cluster: Cluster, witness: Path) -> None:
    result = cluster["slow"].apply_async((str(witness),), soft_time_limit=0.5)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=60)
    cluster.until_state(result.id, "timed_out")


def test_revoke_with_terminate_stops_it(cluster: Cluster, witness: Path) -> None:
    result = cluster["slow"].delay(str(witness))
    until(lambda: lines(witness))
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=60)
    cluster.until_state(result.id, "cancelled")


def test_retry_in_a_child_process(cluster: Cluster) -> None:
    assert cluster["retry"].delay(2, 0).get(timeout=60)["attempt"] == 3


def test_replace_in_a_child_process(cluster: Cluster) -> None:
    assert cluster["replaced"].delay(4).get(timeout=60) == 5


def test_a_container_job_does_not_come_here(cluster: Cluster) -> None:
    run_container = cluster.app.tasks["cloudai.run_container"]
    job: dict[str, Any] = {"kwargs": {"image": "busybox", "command": ["true"]}, "resources": {"cpu": 1}}
    with pytest.raises(Unplaceable, match="containers=yes"):
        run_container.apply_async(**job, unplaceable="reject")
    waiting = run_container.apply_async(**job)
    by_name = cluster.app.send_task("cloudai.run_container", constraints={"containers": "no"}, **job)
    assert {cluster.state(waiting.id), cluster.state(by_name.id)} == {"waiting"}
    threads = cluster.start("threads", cpu=1)
    assert {waiting.get(timeout=60)["node"], by_name.get(timeout=60)["node"]} == {"threads@t"}
    threads.stop()


def test_a_container_job_that_comes_here_all_the_same_is_told(cluster: Cluster) -> None:
    """A message straight in the node's list: nobody has placed it."""
    body = base64.b64encode(json.dumps([[], {"image": "busybox", "command": ["true"]}, {}]).encode()).decode()
    sent = message("cloudai.run_container", body=body)
    cluster.deployment.client.lpush(node_queue("forks@t"), json.dumps(sent))
    with pytest.raises(EngineUnavailable, match="nothing was reserved"):
        cluster.app.AsyncResult(sent["headers"]["id"]).get(timeout=60)


def test_sigquit_gives_the_running_task_back(cluster: Cluster, witness: Path, gate: Path) -> None:
    cluster.start("forks2", "-P", "prefork", "-c", "1", cpu=1)
    doomed = cluster.start("doomed", "-P", "prefork", "-c", "1", cpu=1, labels={"doomed": "yes"})
    result = cluster["hold"].apply_async((str(witness), str(gate)), target_worker_id="doomed@t")
    until(lambda: lines(witness))
    doomed.signal(3)
    doomed.ended()
    entry = cluster.until_state(result.id, "waiting")
    assert entry["node"] == ""
    again = cluster.start("doomed", "-P", "prefork", "-c", "1", cpu=1)
    until(lambda: len(lines(witness)) == 2)
    gate.touch()
    assert result.get(timeout=60) == "doomed@t"
    assert lines(witness) == ["doomed@t 1", "doomed@t 2"]
    again.stop()
