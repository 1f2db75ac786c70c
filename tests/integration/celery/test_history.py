"""From a real worker to the history: what a node measured is what the optimiser reads."""

from __future__ import annotations

import secrets

import pytest

from cloudai.embedded import EmbeddedMongo
from cloudai.history.recorder import Recorder
from cloudai.history.store import HistoryStore

from ...waiting import until
from .cluster import Cluster


@pytest.fixture(scope="module")
def cluster(bare_cluster: Cluster) -> Cluster:
    bare_cluster.start("one", "-P", "threads")
    return bare_cluster


@pytest.fixture
def history(mongo_server: EmbeddedMongo):
    with HistoryStore(mongo_server.url, f"celery-{secrets.token_hex(4)}") as store:
        yield store


def test_what_a_worker_ran_is_in_the_history(cluster, history, witness, gate):
    held = cluster["hold"].apply_async(args=(str(witness), str(gate)), family="holding", user_id="ann")
    until(witness.exists)
    gate.touch()
    held.get(timeout=60)
    failed = cluster["fail"].delay("broken")
    with pytest.raises(ValueError, match="broken"):
        failed.get(timeout=60)
    cluster.quiet()
    until(lambda: any("overload_s" in node.usage for node in cluster.deployment.fleet.heard()), "a heartbeat")

    recorded = Recorder(cluster.deployment, history).record_once()
    assert (recorded.problem, recorded.behind, recorded.lost, recorded.skipped) == ("", 0, 0, {})
    read = history.task_history(0.0, 1e12, 10_000)
    assert read.skipped == {}
    records = {record.task_id: record for record in read.records}
    assert set(records) == {held.id, failed.id}

    record = records[held.id]
    assert (record.worker_id, record.attempt, record.task_type) == ("one@t", 1, "cpu-light")
    assert (record.outcome, record.final, record.family) == ("succeeded", True, "holding")
    assert record.arrival_time <= record.actual_start + 1 <= record.actual_finish + 2
    assert 0 < record.actual_runtime <= record.actual_finish - record.arrival_time
    assert record.sla_success is (record.actual_finish <= record.deadline)
    assert record.deadline == pytest.approx(record.arrival_time + 2.0 * record.tau)
    assert record.tau == 5.0
    cpu, memory, gpu, load = record.features
    assert (cpu, memory, gpu) == (pytest.approx(1 / 2, rel=1e-4), pytest.approx(64 / 4096, rel=1e-4), 0.0)
    assert record.load_at_start == load
    assert record.predicted_runtime > record.tau
    assert record.parameters_version == 0
    assert record.cpu_used == pytest.approx(record.actual_runtime)
    assert record.overload_time >= 0.0

    failure = records[failed.id]
    assert (failure.outcome, failure.sla_success) == ("failed", False)
    assert history.task(held.id)["user_id"] == "ann"
    (sample,) = history.tau_history(0.0, 1e12)
    assert sample.tau == pytest.approx(0.2 * record.actual_runtime + 0.8 * 5.0, rel=1e-6)
    (stats,) = history.worker_stats(0.0, 1e12).records
    assert (stats.worker_id, stats.tasks_run, stats.cpu) == ("one@t", 2, 2.0)
    assert stats.total_time > 0
