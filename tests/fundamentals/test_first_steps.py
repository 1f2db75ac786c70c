"""From the first `apply_async` to chords, retries and revocation: read it from top to bottom, each test is one step.

The tasks are in tests/integration/celery/jobs.py, an ordinary Celery project but for the class of its application.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError

from cloudai.containers.errors import ContainerFailed
from cloudai.errors import InvalidRequest
from cloudai.scheduling.learning import TAU_MIN_S

from ..integration.celery.cluster import Cluster, lines
from ..waiting import until


@pytest.fixture(scope="module")
def cluster(bare_cluster: Cluster) -> Cluster:
    """One node of two cores: `celery -A jobs worker`."""
    bare_cluster.start("node", cpu=2, memory="4GiB", labels={"zone": "a"})
    return bare_cluster


@pytest.fixture(autouse=True)
def _nothing_is_left(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.quiet()


def test_01_run_a_container(cluster: Cluster) -> None:
    """A container job is a Celery task like any other; its result is the record of the run."""
    run_container = cluster.app.tasks["cloudai.run_container"]
    result = run_container.apply_async(
        kwargs={"image": "debian:bookworm", "command": ["sh", "-c", "echo hello"]},
        resources={"cpu": 1, "memory": "64MiB"},
    )
    record = result.get(timeout=60)
    assert record["exit_code"] == 0
    assert record["stdout_tail"] == "hello\n"
    assert record["node"] == "node@t"


def test_02_a_non_zero_exit_is_a_failure_with_the_record(cluster: Cluster) -> None:
    run_container = cluster.app.tasks["cloudai.run_container"]
    result = run_container.apply_async(
        kwargs={"image": "debian:bookworm", "command": ["sh", "-c", "echo oh no >&2; exit 3"]}
    )
    with pytest.raises(ContainerFailed) as failed:
        result.get(timeout=60)
    assert failed.value.result is not None
    assert failed.value.result.exit_code == 3
    assert failed.value.result.stderr_tail == "oh no\n"


def test_03_any_task_may_ask_for_resources(cluster: Cluster) -> None:
    """`@app.task(resources=...)` asks for all submissions; what a submission asks for itself wins."""
    add = cluster["add"]
    assert add.delay(1, 2).get(timeout=60) == 3
    result = add.apply_async((1, 2), resources={"cpu": 2, "memory": "1GiB"}, task_type="cpu-heavy", family="sums")
    assert result.get(timeout=60) == 3
    assert cluster.until_state(result.id, "succeeded")["type"] == "cpu-heavy"


def test_04_a_mistake_is_told_at_once(cluster: Cluster) -> None:
    with pytest.raises(InvalidRequest) as refused:
        cluster["add"].apply_async((1, 2), resources={"memory": "1MiB"})
    assert str(refused.value).startswith("memory: '1MiB' was given; allowed: 6 MiB")


def test_05_what_does_not_fit_now_waits(cluster: Cluster, witness: Path, gate: Path) -> None:
    running = [cluster["hold"].delay(str(witness), str(gate)) for _ in range(2)]
    until(lambda: len(lines(witness)) == 2)
    waiting = cluster["add"].delay(1, 2)
    assert cluster.state(waiting.id) == "waiting"
    gate.touch()
    assert waiting.get(timeout=60) == 3
    for one in running:
        one.get(timeout=60)


def test_06_a_deadline_decides_who_is_next(cluster: Cluster, witness: Path, gate: Path) -> None:
    running = cluster["hold"].apply_async((str(witness), str(gate)), resources={"cpu": 2})
    until(lambda: lines(witness))
    whole = {"cpu": 2}
    later = cluster["mark"].apply_async((str(witness), "later"), resources=whole, deadline=timedelta(hours=2))
    sooner = cluster["mark"].apply_async((str(witness), "sooner"), resources=whole, deadline=timedelta(hours=1))
    gate.touch()
    for one in (running, later, sooner):
        one.get(timeout=60)
    assert lines(witness)[1:] == ["sooner", "later"]


def test_07_labels_and_targets(cluster: Cluster) -> None:
    assert cluster["add"].apply_async((1, 2), constraints={"zone": "a"}).get(timeout=60) == 3
    assert cluster["add"].apply_async((1, 2), target_worker_id="node@t").get(timeout=60) == 3


def test_08_groups_chains_and_chords(cluster: Cluster) -> None:
    add, total = cluster["add"], cluster["total"]
    assert group(add.s(i, i) for i in range(3))().get(timeout=60) == [0, 2, 4]
    assert chain(add.s(1, 2), add.s(3))().get(timeout=60) == 6
    assert chord([add.s(i, i) for i in range(3)])(total.s()).get(timeout=60) == 6


def test_09_retries_keep_their_deadline(cluster: Cluster) -> None:
    result = cluster["retry"].apply_async((2, 0), deadline=timedelta(hours=1))
    deadline = float(cluster.deployment.ledger.entry(result.id)["deadline"])
    assert result.get(timeout=60)["deadline"] == deadline


def test_10_revoke_works_in_every_state(cluster: Cluster) -> None:
    waiting = cluster["add"].apply_async((1, 2), countdown=3600)
    waiting.revoke()
    with pytest.raises(TaskRevokedError):
        waiting.get(timeout=60)
    running = cluster.app.tasks["cloudai.run_container"].apply_async(
        kwargs={"image": "debian:bookworm", "command": ["sleep", "3600"]}
    )
    cluster.until_state(running.id, "running")
    running.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=60)


def test_11_tau_learns_from_successes(cluster: Cluster) -> None:
    before = cluster.deployment.tau.read()["cpu-light"]
    result = cluster["add"].delay(1, 2)
    runtime = result.get(timeout=60)
    entry = cluster.until_state(result.id, "succeeded")
    after = cluster.deployment.tau.read()["cpu-light"]
    assert runtime == 3
    # A task this small may take less than the shortest runtime that is learned.
    sample = max(float(entry["runtime"]), TAU_MIN_S)
    assert after == pytest.approx(0.2 * sample + 0.8 * before, rel=1e-6)
