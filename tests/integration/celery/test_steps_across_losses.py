"""Steps that follow on a task when its node dies, or Redis does, between the work and the word of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import _state as celery_state
from celery import chord

from ...waiting import until
from .cluster import Cluster, WorkerProcess, lines


@pytest.fixture(scope="module")
def node(bare_cluster: Cluster) -> WorkerProcess:
    return bare_cluster.start("steady", cpu=2)


@pytest.fixture
def cluster(bare_cluster: Cluster, node: WorkerProcess) -> Iterator[Cluster]:
    yield bare_cluster
    bare_cluster.quiet()


def test_a_chain_goes_on_after_redis_was_away(cluster: Cluster, witness: Path, gate: Path) -> None:
    result = (cluster["hold"].si(str(witness), str(gate)) | cluster["mark"].si(str(witness), "next")).apply_async()
    until(lambda: lines(witness))
    cluster.valkey.stop()
    gate.touch()
    time.sleep(2)  # longer than Celery would try to publish the next step
    cluster.valkey.start()
    assert result.get(timeout=60) == "next"
    assert lines(witness).count("next") == 1


def test_a_step_that_a_rerun_publishes_again_runs_once(cluster: Cluster, witness: Path) -> None:
    task_id = str(uuid.uuid4())
    parent = cluster["add"]
    parent.push_request(id=str(uuid.uuid4()), cloudai={"attempt": 1}, called_directly=False)
    celery_state._task_stack.push(parent)
    try:
        for _ in range(2):
            result = cluster["mark"].apply_async((str(witness), "step"), task_id=task_id)
            assert result.get(timeout=60, disable_sync_subtasks=False) == "step"
            cluster.until_state(task_id, "succeeded")
    finally:
        celery_state._task_stack.pop()
        parent.pop_request()
    cluster.quiet()
    assert lines(witness) == ["step"]


def test_a_chord_hears_of_a_part_whose_node_died_before_it_could_tell(
    cluster: Cluster, witness: Path, gate: Path
) -> None:
    part = cluster["hold"].si(str(witness), str(gate)).set(resources={"cpu": 1}, target_worker_id="doomed@t")
    other = cluster["mark"].si(str(witness), "other")
    doomed = cluster.start("doomed", cpu=1)
    result = chord([part, other], cluster["tell"].s(str(witness))).apply_async()
    until(lambda: len(lines(witness)) == 2)
    doomed.kill()
    # As if it had died between storing its result and telling the chord.
    cluster.app.backend.store_result(result.parent.results[0].id, "doomed@t", "SUCCESS")
    again = cluster.start("doomed", cpu=1)
    assert result.get(timeout=60) == ["doomed@t", "other"]
    again.stop()
