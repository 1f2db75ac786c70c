"""Nodes that stop, are killed, come back, and a Redis that is away for a while: nothing lost, nothing doubled.

Where a node is to come back within its lease, the lease is long: a busy machine takes seconds to start a worker.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import chain, chord
from celery.exceptions import TaskRevokedError

from ...waiting import until
from .cluster import Cluster, lines


@pytest.fixture(scope="module")
def cluster(bare_cluster: Cluster) -> Cluster:
    return bare_cluster


@pytest.fixture(autouse=True)
def _quiet(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.quiet()


def test_warm_shutdown_finishes_what_runs_and_gives_back_the_rest(cluster: Cluster, witness: Path, gate: Path) -> None:
    node = cluster.start("warm", cpu=2)
    running = [cluster["hold"].delay(str(witness), str(gate)) for _ in range(2)]
    until(lambda: len(lines(witness)) == 2)
    waiting = [cluster["mark"].delay(str(witness), "later") for _ in range(3)]
    node.signal(signal.SIGTERM)
    until(lambda: cluster.node_state("warm") == "draining")
    gate.touch()
    assert [r.get(timeout=60) for r in running] == ["warm@t", "warm@t"]
    assert node.ended() == 0
    assert cluster.node_state("warm") == "down"
    assert {cluster.state(r.id) for r in waiting} == {"waiting"}
    again = cluster.start("warm", cpu=2)
    assert [r.get(timeout=60) for r in waiting] == ["later"] * 3
    assert len(lines(witness)) == 5
    again.stop()


def test_warm_shutdown_keeps_a_late_acknowledged_task(cluster: Cluster, witness: Path, gate: Path) -> None:
    node = cluster.start("late", cpu=1)
    result = cluster["late_hold"].delay(str(witness), str(gate))
    until(lambda: lines(witness))
    node.signal(signal.SIGTERM)
    until(lambda: cluster.node_state("late") == "draining")
    gate.touch()
    assert result.get(timeout=60) == "late@t"
    assert node.ended() == 0
    assert lines(witness) == ["late@t 1"]


def test_sigquit_stops_a_container_job_and_gives_it_back(cluster: Cluster, witness: Path) -> None:
    node = cluster.start("cold", cpu=1)
    script = f"echo ran >> {witness}; test $(wc -l < {witness}) -gt 1 || exec sleep 600"
    result = cluster.app.tasks["cloudai.run_container"].apply_async(
        kwargs={"image": "busybox", "command": ["sh", "-c", script]}, resources={"cpu": 1}
    )
    until(lambda: lines(witness))
    node.signal(signal.SIGQUIT)
    node.ended()
    assert cluster.until_state(result.id, "waiting")["node"] == ""
    again = cluster.start("cold", cpu=1)
    assert result.get(timeout=60)["attempt"] == 2
    assert len(lines(witness)) == 2
    again.stop()


def test_a_killed_node_s_tasks_run_elsewhere_after_the_lease(cluster: Cluster, witness: Path, gate: Path) -> None:
    doomed = cluster.start("doomed", cpu=1)
    result = cluster["hold"].delay(str(witness), str(gate))
    until(lambda: lines(witness) == ["doomed@t 1"])
    cluster.start("heir", cpu=1)
    doomed.kill()
    until(lambda: lines(witness) == ["doomed@t 1", "heir@t 2"])
    gate.touch()
    assert result.get(timeout=60) == "heir@t"
    lost, run_again = (next(e for e in cluster.events(result.id) if e.get("reason") == "node lost"), 2)
    assert lost["node"] == "doomed@t"
    assert cluster.until_state(result.id, "succeeded")["attempt"] == str(run_again)


def test_a_killed_node_that_comes_back_adopts_its_tasks(cluster: Cluster, witness: Path, gate: Path) -> None:
    doomed = cluster.start("phoenix", cpu=1, lease_s=60.0)
    result = cluster["hold"].apply_async((str(witness), str(gate)), target_worker_id="phoenix@t")
    until(lambda: lines(witness) == ["phoenix@t 1"])
    doomed.kill()
    again = cluster.start("phoenix", cpu=1, lease_s=60.0)
    until(lambda: lines(witness) == ["phoenix@t 1", "phoenix@t 2"])
    gate.touch()
    assert result.get(timeout=60) == "phoenix@t"
    assert "tasks-adopted" in again.log
    again.stop()


def test_a_result_that_was_stored_before_the_kill_is_not_made_again(
    cluster: Cluster, witness: Path, gate: Path
) -> None:
    doomed = cluster.start("doomed", cpu=1, lease_s=60.0)
    result = cluster["hold"].apply_async((str(witness), str(gate)), target_worker_id="doomed@t")
    until(lambda: lines(witness))
    doomed.kill()
    # As if it had died between storing its result and telling the ledger.
    cluster.app.backend.store_result(result.id, "doomed@t", "SUCCESS")
    again = cluster.start("doomed", cpu=1, lease_s=60.0)
    cluster.until_state(result.id, "succeeded")
    assert lines(witness) == ["doomed@t 1"]
    again.stop()


def test_a_second_live_node_of_the_same_name_is_refused(cluster: Cluster) -> None:
    first = cluster.start("only", cpu=1)
    second = cluster.start("only", cpu=1, wait=False)
    assert second.ended() != 0
    assert "NodeRefused" in second.log
    assert first.process.poll() is None
    assert cluster["add"].apply_async((1, 1), target_worker_id="only@t").get(timeout=60) == 2
    first.stop()


def test_redis_restarts_while_tasks_run_and_end(cluster: Cluster, witness: Path, tmp_path: Path) -> None:
    node = cluster.start("steady", cpu=4)
    gates = [tmp_path / f"gate{i}" for i in range(4)]
    running = [cluster["hold"].apply_async((str(witness), str(g)), target_worker_id="steady@t") for g in gates]
    waiting = [cluster["mark"].apply_async((str(witness), "after"), target_worker_id="steady@t") for _ in range(4)]
    until(lambda: len(lines(witness)) == 4)
    cluster.valkey.stop()
    for one in gates[:2]:
        one.touch()
    # They end while nobody can be told.
    until(lambda: node.log.count("redis-away") + node.log.count("retry") + node.log.count("onnection") > 0)
    cluster.valkey.start()
    for one in gates[2:]:
        one.touch()
    assert [r.get(timeout=60) for r in running] == ["steady@t"] * 4
    assert [r.get(timeout=60) for r in waiting] == ["after"] * 4
    assert node.process.poll() is None
    assert sorted(lines(witness)) == ["after"] * 4 + ["steady@t 1"] * 4


def test_a_stopped_process_that_wakes_up_late_stores_nothing(cluster: Cluster, witness: Path, tmp_path: Path) -> None:
    """kill -STOP outlasts the lease: the other attempt's outcome counts, the sleeper's does not."""
    sleeper = cluster.start("sleeper", cpu=1)
    gate = tmp_path / "gate"
    link = cluster["mark"].si(str(witness), "linked")
    result = cluster["hold"].apply_async((str(witness), str(gate)), link=link, constraints={"zone": "x"})
    sleeper.stop()
    sleeper = cluster.start("sleeper", cpu=1, labels={"zone": "x"})
    until(lambda: lines(witness) == ["sleeper@t 1"])
    cluster.start("awake", cpu=2, labels={"zone": "x"})
    sleeper.signal(signal.SIGSTOP)
    until(lambda: lines(witness)[1:] == ["awake@t 2"])
    gate.touch()
    assert result.get(timeout=60) == "awake@t"
    sleeper.signal(signal.SIGCONT)
    until(lambda: "result-fenced" in sleeper.log or "finish-refused" in sleeper.log)
    until(lambda: "linked" in lines(witness))
    cluster.quiet()
    assert result.get(timeout=60) == "awake@t"
    assert lines(witness).count("linked") == 1
    sleeper.stop()


def ended(job: psutil.Process) -> bool:
    return not job.is_running() or job.status() == psutil.STATUS_ZOMBIE


def container_job(cluster: Cluster, node: str, script: str) -> Any:
    """The signature of a job that writes its pid, then runs the script."""
    return cluster.app.tasks["cloudai.run_container"].signature(
        kwargs={"image": "busybox", "command": ["sh", "-c", script]},
        options={"resources": {"cpu": 1}, "target_worker_id": f"{node}@t"},
        immutable=True,
    )


def test_a_restarted_node_attaches_to_the_job_that_outlived_its_worker(
    cluster: Cluster, witness: Path, gate: Path
) -> None:
    node = cluster.start("adopter", cpu=2, lease_s=60.0)
    wait = f"echo $$ >> {witness}; while [ ! -e {gate} ]; do sleep 0.05; done; echo made once"
    linked = cluster["mark"].si(str(witness), "linked").set(target_worker_id="adopter@t")
    joined = cluster["mark"].si(str(witness), "joined").set(target_worker_id="adopter@t")
    chained = chain(container_job(cluster, "adopter", wait), linked).apply_async()
    chorded = chord([container_job(cluster, "adopter", wait)], joined).apply_async()
    until(lambda: len(lines(witness)) == 2)
    jobs = [psutil.Process(int(line)) for line in lines(witness)]
    node.kill()
    # One goes on without a worker and ends before the node is back, the other is still there.
    assert not any(ended(job) for job in jobs)
    gate.touch()
    until(lambda: all(ended(job) for job in jobs))
    again = cluster.start("adopter", cpu=2, lease_s=60.0)
    assert chained.get(timeout=60) == "linked"
    assert chorded.get(timeout=60) == "joined"
    record = chained.parent.get(timeout=60)
    assert (record["attempt"], record["stdout_tail"]) == (2, "made once\n")
    assert len(lines(witness)) == 4
    assert again.log.count("job-adopted") == 2
    entry = cluster.deployment.ledger.entry(chained.parent.id)
    assert "losses" not in entry
    again.stop()


def test_a_job_that_ended_with_its_machine_runs_again_when_the_node_is_back(
    cluster: Cluster, witness: Path, gate: Path
) -> None:
    node = cluster.start("reborn", cpu=1, lease_s=60.0)
    result = container_job(cluster, "reborn", f"echo ran >> {witness}; [ -e {gate} ] || exec sleep 600").apply_async()
    until(lambda: lines(witness))
    # Guardian and job; the worker goes first, so that nobody sees its job end.
    others = psutil.Process(node.process.pid).children(recursive=True)
    assert len(others) >= 2
    node.kill()
    for process in others:
        process.kill()
    gate.touch()
    again = cluster.start("reborn", cpu=1, lease_s=60.0)
    assert result.get(timeout=60)["attempt"] == 2
    assert lines(witness) == ["ran", "ran"]
    assert cluster.deployment.ledger.entry(result.id)["losses"] == "1"
    again.stop()


def test_a_job_goes_on_across_restarts_of_its_node(cluster: Cluster, witness: Path, gate: Path) -> None:
    node = cluster.start("serial", cpu=1, lease_s=60.0)
    wait = f"echo $$ >> {witness}; while [ ! -e {gate} ]; do sleep 0.05; done; echo made once"
    result = container_job(cluster, "serial", wait).apply_async()
    until(lambda: lines(witness))
    for attempt in ("2", "3"):
        node.kill()
        node = cluster.start("serial", cpu=1, lease_s=60.0)
        entry = cluster.until_state(result.id, "running")
        assert entry["attempt"] == attempt
    job = psutil.Process(int(lines(witness)[0]))
    until(lambda: job.status() != psutil.STATUS_STOPPED, "the job goes on")
    gate.touch()
    record = result.get(timeout=60)
    assert (record["attempt"], record["stdout_tail"]) == (3, "made once\n")
    assert lines(witness) == [str(job.pid)]
    node.stop()


def test_a_job_whose_task_was_cancelled_meanwhile_is_ended_when_its_node_joins_again(
    cluster: Cluster, witness: Path
) -> None:
    node = cluster.start("left", cpu=1, lease_s=60.0)
    result = container_job(cluster, "left", f"echo $$ >> {witness}; exec sleep 600").apply_async()
    until(lambda: lines(witness))
    job = psutil.Process(int(lines(witness)[0]))
    node.kill()
    assert job.is_running()
    result.revoke(terminate=True)
    again = cluster.start("left", cpu=1, lease_s=60.0)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=60)
    until(lambda: ended(job), "the job is ended")
    assert f"leftover-ended node=left@t task={result.id} attempt=1" in again.log
    again.stop()
