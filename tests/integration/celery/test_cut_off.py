"""Nodes that cannot renew their lease: jobs are paused before others may be given them, and go on or end after."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ...waiting import until
from .cluster import Cluster, lines
from .relay import Relay

#: Seconds. Jobs are paused after 4.5 s and given to others after 9 s at the earliest: a busy machine may be late.
TIMERS = {"lease_s": 6.0, "lease_margin_s": 3.0}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), {"node": TIMERS})
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(autouse=True)
def _quiet(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.quiet()


def ticking(cluster: Cluster, witness: Path, gate: Path, **options: Any) -> Any:
    """A job that writes its pid again and again until the gate opens."""
    script = f"while [ ! -e {gate} ]; do echo $$ >> {witness}; sleep 0.05; done"
    return cluster.app.tasks["cloudai.run_container"].apply_async(
        kwargs={"image": "busybox", "command": ["sh", "-c", script]}, resources={"cpu": 1}, **options
    )


def process(witness: Path) -> psutil.Process:
    """The process that wrote first."""
    until(lambda: lines(witness))
    return psutil.Process(int(lines(witness)[0]))


def test_an_outage_of_redis_past_the_lease_freezes_work_and_loses_none(
    cluster: Cluster, witness: Path, gate: Path
) -> None:
    node = cluster.start("frozen", cpu=1)
    begun = time.monotonic()
    result = ticking(cluster, witness, gate)
    job = process(witness)
    cluster.valkey.stop()
    until(lambda: job.status() == psutil.STATUS_STOPPED, "the job is paused", 60)
    cluster.valkey.start()
    until(lambda: job.status() != psutil.STATUS_STOPPED, "the job goes on", 60)
    gate.touch()
    record = result.get(timeout=60)
    took = time.monotonic() - begun
    assert record["attempt"] == 1
    assert set(lines(witness)) == {str(job.pid)}
    entry = cluster.until_state(result.id, "succeeded")
    paused = float(entry["paused"])
    assert paused > 0
    assert record["run_s"] + paused <= took
    assert float(entry["runtime"]) == pytest.approx(record["run_s"])
    told = [event["event"] for event in cluster.events(result.id)]
    assert told[-3:] == ["paused", "resumed", "finished"]
    assert "job-paused" in node.log
    assert "job-resumed" in node.log
    node.stop()


def test_a_node_that_is_cut_off_has_paused_before_its_job_runs_elsewhere(
    cluster: Cluster, witness: Path, gate: Path
) -> None:
    relay = Relay(cluster.valkey.url)
    try:
        cut = cluster.start("cut", cpu=1, redis_url=relay.url)
        result = ticking(cluster, witness, gate)
        job = process(witness)
        other = cluster.start("other", cpu=1)
        relay.cut()
        until(lambda: lines(witness)[-1] != str(job.pid), "the job runs elsewhere", 60)
        assert job.status() == psutil.STATUS_STOPPED
        before = len(lines(witness))
        until(lambda: len(lines(witness)) > before + 5)
        relay.heal()
        until(lambda: ended(job), "the old attempt is ended", 60)
        gate.touch()
        assert result.get(timeout=60)["attempt"] == 2
        seen = lines(witness)
        assert str(job.pid) not in seen[seen.index(seen[-1]) :]
        assert "job-superseded" in cut.log
        until(lambda: cluster.node_state("cut") == "up", "the node is back")
        cut.stop()
        other.stop()
    finally:
        relay.close()


def ended(job: psutil.Process) -> bool:
    return not job.is_running() or job.status() == psutil.STATUS_ZOMBIE


def guardians(cluster: Cluster, node: str) -> list[psutil.Process]:
    """The guardian processes of a node of this cluster."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        said = " ".join(process.info["cmdline"] or ())
        if "guardian" in said and f'"{node}@t"' in said and str(cluster.folder) in said:
            found.append(process)
    return found


def test_a_stopped_worker_s_job_is_paused_by_the_guardian(cluster: Cluster, witness: Path, gate: Path) -> None:
    stopped = cluster.start("stopped", cpu=1)
    result = ticking(cluster, witness, gate)
    job = process(witness)
    other = cluster.start("other", cpu=1)
    stopped.signal(signal.SIGSTOP)
    until(lambda: lines(witness)[-1] != str(job.pid), "the job runs elsewhere", 60)
    assert job.status() == psutil.STATUS_STOPPED
    stopped.signal(signal.SIGCONT)
    until(lambda: ended(job), "the old attempt is ended", 60)
    gate.touch()
    assert result.get(timeout=60)["attempt"] == 2
    seen = lines(witness)
    assert str(job.pid) not in seen[seen.index(seen[-1]) :]
    until(lambda: cluster.node_state("stopped") == "up", "the node is back")
    stopped.stop()
    other.stop()
    until(lambda: not guardians(cluster, "stopped"), "its guardian has ended")


def test_a_killed_worker_s_job_is_paused_then_ended_by_the_guardian(
    cluster: Cluster, witness: Path, gate: Path
) -> None:
    killed = cluster.start("killed", cpu=1)
    result = ticking(cluster, witness, gate)
    job = process(witness)
    other = cluster.start("other", cpu=1)
    assert len(guardians(cluster, "killed")) == 1
    killed.kill()
    until(lambda: lines(witness)[-1] != str(job.pid), "the job runs elsewhere", 60)
    until(lambda: ended(job), "what the worker left is ended", 60)
    gate.touch()
    assert result.get(timeout=60)["attempt"] == 2
    seen = lines(witness)
    assert str(job.pid) not in seen[seen.index(seen[-1]) :]
    until(lambda: not guardians(cluster, "killed"), "its guardian has ended")
    assert not list((cluster.folder / "work" / "killed@t" / "processes").iterdir())
    assert killed.log.index("guardian-paused") < killed.log.index("guardian-ended")
    other.stop()


def test_a_guardian_that_died_is_started_again(cluster: Cluster) -> None:
    node = cluster.start("watched", cpu=1)
    (first,) = guardians(cluster, "watched")
    first.kill()
    until(lambda: "guardian-restarted" in node.log)
    until(lambda: len(guardians(cluster, "watched")) == 1)
    node.stop()
