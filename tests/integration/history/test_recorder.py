"""The recorder: everything that happened is in the history, once, whatever goes wrong on the way."""

from __future__ import annotations

import logging
import threading

import pytest

from cloudai.history import recorder as module
from cloudai.history.collections import ASSIGNMENTS, PARAMETERS, RESULTS, TASKS, WORKER_REGISTRY
from cloudai.history.errors import HistoryError
from cloudai.history.store import HistoryStore
from cloudai.scheduling.parameters import GAParams

from .conftest import FEATURES, Jobs

FOREVER = (0.0, 1e12)


def everything(database):
    """All documents, by collection and id."""
    return {
        name: {document["_id"]: document for document in database[name].find()}
        for name in (TASKS, ASSIGNMENTS, RESULTS, PARAMETERS, WORKER_REGISTRY)
    }


# --- what is kept


def test_a_task_from_submission_to_result(jobs: Jobs, database):
    lab = jobs.lab
    before = lab.now()
    claim = jobs.run("t1", cpu=2000, memory=4096, sla_s=1000.0)
    lab.ledger.finish(
        "t1", claim.attempt, "succeeded", runtime_s=2.5, started=before + 0.125,
        usage={"cpu_seconds": 3.0, "peak_memory": 1 << 28, "overload_s": 0.75},
    )  # fmt: skip
    jobs.record()
    (record,) = jobs.store.task_history(*FOREVER, 10).records
    assert (record.task_id, record.attempt, record.worker_id) == ("t1", 1, "n1")
    assert (record.task_type, record.outcome, record.final) == ("cpu-light", "succeeded", True)
    assert before <= record.arrival_time <= record.actual_finish <= lab.now()
    assert record.deadline == pytest.approx(record.arrival_time + 1000.0)
    assert record.sla_success is True
    assert (record.actual_start, record.actual_runtime) == (pytest.approx(before + 0.125), 2.5)
    # Core-seconds as measured, GiB-seconds from the peak, both over the runtime; and what it asked for.
    assert (record.cpu_used, record.mem_used, record.gpu_used) == (3.0, 0.25 * 2.5, 0.0)
    assert (record.cpu, record.memory, record.gpu) == (2.0, 4096 / 2**20, 0.0)
    assert (record.features, record.load_at_start) == (FEATURES, FEATURES[3])
    assert (record.tau, record.predicted_runtime, record.parameters_version) == (5.0, 6.25, 3)
    assert record.overload_time == 0.75
    task = jobs.store.task("t1")
    assert (task["state"], task["worker_id"], task["attempt"], task["name"]) == ("succeeded", "n1", 1, "jobs.work")
    (assignment,) = task["assignments"]
    assert (assignment["features"], assignment["load_at_start"]) == (list(FEATURES), FEATURES[3])
    assert (assignment["tau"], assignment["predicted_runtime"], assignment["parameters_version"]) == (5.0, 6.25, 3)
    assert assignment["placed_at"] <= assignment["claimed_at"] <= assignment["finished_at"]


def test_a_task_that_waited_has_the_prediction_of_its_placement(jobs: Jobs):
    assert jobs.submit("t1") == "waiting"
    assert jobs.lab.place_waiting("t1", "n1") == "n1"
    jobs.record()
    (assignment,) = jobs.store.task("t1")["assignments"]
    assert (assignment["tau"], assignment["predicted_runtime"], assignment["parameters_version"]) == (5.0, 2.5, 7)


def test_failures_and_missed_deadlines_are_no_success(jobs: Jobs):
    jobs.complete("late", sla_s=0.0)
    jobs.complete("failed", outcome="failed", runtime_s=None)
    jobs.complete("good")
    jobs.record()
    records = {record.task_id: record for record in jobs.store.task_history(*FOREVER, 10).records}
    assert {name: (r.outcome, r.sla_success) for name, r in records.items()} == {
        "late": ("succeeded", False), "failed": ("failed", False), "good": ("succeeded", True),
    }  # fmt: skip
    assert records["failed"].actual_runtime is None


def test_ends_without_a_node_are_ends(jobs: Jobs):
    assert jobs.submit("t1") == "waiting"
    jobs.lab.ledger.cancel("t1")
    jobs.record()
    (record,) = jobs.store.task_history(*FOREVER, 10).records
    assert (record.outcome, record.attempt, record.worker_id, record.actual_start) == ("cancelled", 0, "", None)
    assert (record.cpu_used, record.sla_success) == (None, False)
    assert jobs.store.task("t1")["state"] == "cancelled"
    jobs.lab.settle_all()


def test_attempts_of_a_lost_node_are_told_apart(jobs: Jobs):
    lab = jobs.lab
    jobs.run("t1")
    lab.sweep_through(200)
    lab.join("n2")
    assert lab.place_waiting("t1", "n2") == "n2"
    claim = lab.take("n2")
    lab.finish(claim)
    jobs.record()
    task = jobs.store.task("t1")
    first, second = task["assignments"]
    assert (first["worker_id"], first["given_up_because"]) == ("n1", "node lost")
    assert (second["worker_id"], second["outcome"]) == ("n2", "succeeded")
    (record,) = jobs.store.task_history(*FOREVER, 10).records
    assert (record.worker_id, record.attempt) == ("n2", 2)


def test_an_id_that_is_used_again_keeps_both_results(jobs: Jobs):
    jobs.complete("t1", runtime_s=1.0)
    jobs.complete("t1", runtime_s=2.0)
    jobs.record()
    runtimes = sorted(record.actual_runtime for record in jobs.store.task_history(*FOREVER, 10).records)
    assert runtimes == [1.0, 2.0]


def test_nodes_tau_and_parameters_are_kept_too(jobs: Jobs, database):
    lab = jobs.lab
    lab.fleet.drain("n1")
    lab.fleet.undrain("n1")
    lab.tau.set("mixed", 12.5)
    jobs.complete("t1")
    version = lab.parameters.publish(GAParams(), "file mine.json")
    jobs.record()
    node = database[WORKER_REGISTRY].find_one({"_id": "n1"})
    assert (node["state"], node["cpu"], node["slots"]) == ("up", 4.0, 8)
    assert node["labels"] == [{"name": "zone", "value": "z"}]
    taus = {sample.task_type: (sample.tau, sample.runtime) for sample in jobs.store.tau_history(*FOREVER)}
    assert taus == {"mixed": (12.5, None), "cpu-light": (0.2 * 2.0 + 0.8 * 5.0, 2.0)}
    (published,) = jobs.store.parameters()
    assert (published.version, published.source) == (version, "file mine.json")
    assert GAParams.from_json(published.json) == GAParams()


def test_a_value_set_by_hand_stands_beside_what_is_learned_in_the_same_seconds(jobs: Jobs):
    jobs.lab.tau.set("cpu-light", 50.0)
    jobs.complete("t1", runtime_s=10.0)
    jobs.record()
    samples = [(sample.tau, sample.runtime) for sample in jobs.store.tau_history(*FOREVER)]
    assert samples == [(50.0, None), (pytest.approx(42.0), 10.0)]


def test_the_clocks_of_nodes_are_sampled(jobs: Jobs):
    lab = jobs.lab
    lab.let_pass(1)
    beat = {"overload_s": 6.0, "overload_excess_s": 3.0}
    lab.fleet.heartbeat("n1", "1", pressure=1.5, usage=beat, publish_after_s=1.0)
    jobs.complete("t1")
    jobs.record()
    (stats,) = jobs.store.worker_stats(*FOREVER).records
    assert (stats.worker_id, stats.tasks_run, stats.sla_violations, stats.total_runtime) == ("n1", 1, 0, 2.0)
    assert (stats.overload_time, stats.overload_excess) == (6.0, 3.0)
    assert stats.total_time == pytest.approx(60.0, rel=0.5)


# --- once, whoever records


def test_recording_again_changes_nothing(jobs: Jobs, database):
    jobs.complete("t1")
    jobs.run("t2")
    assert jobs.write_unrecorded() == {}
    first = everything(database)
    assert jobs.write_unrecorded() == {}
    jobs.record()
    assert everything(database) == first
    assert set(first[TASKS]) == {"t1", "t2"}


def test_a_recorder_that_died_half_way_is_caught_up_with(jobs: Jobs, database):
    claim = jobs.run("t1")
    jobs.write_unrecorded()
    jobs.lab.finish(claim)
    jobs.complete("t2")
    jobs.record()
    found = everything(database)
    assert {key: document["state"] for key, document in found[TASKS].items()} == {"t1": "succeeded", "t2": "succeeded"}
    assert len(found[RESULTS]) == 2


def test_recorders_at_once_record_each_event_once(jobs: Jobs, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 7)
    for i in range(40):
        jobs.complete(f"t{i}")
    events = jobs.deployment.client.xlen(jobs.deployment.keys.events)
    recorded = []

    def record() -> None:
        recorded.append(jobs.new_recorder().record_once())

    threads = [threading.Thread(target=record) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.problem for r in recorded] == [""] * 3
    assert sum(r.events for r in recorded) == events
    assert sum(r.results for r in recorded) == 40
    read = jobs.store.task_history(*FOREVER, 100)
    assert len({record.task_id for record in read.records}) == len(read.records) == 40


def test_with_nothing_to_record_nothing_happens(jobs: Jobs):
    jobs.record()
    assert jobs.recorder.record_once() == module.Recorded()


# --- the stream


def test_the_stream_is_trimmed_behind_the_recorder_and_never_before_it(jobs: Jobs):
    events = jobs.deployment.events
    client, key = jobs.deployment.client, jobs.deployment.keys.events
    for i in range(60):
        jobs.complete(f"t{i}")
    length = client.xlen(key)
    batch = events.unrecorded(100)
    assert (batch.position, batch.dropped, batch.waiting, len(batch.events)) == ("0", 0, length, 100)
    assert client.xlen(key) == length
    assert events.recorded(batch, keep=0)
    # Whole nodes of the stream are dropped, so some recorded ones may stay; nothing that is not recorded goes.
    left = events.unrecorded(1000)
    assert (left.position, left.dropped, left.waiting) == (batch.events[-1][0], 0, length - 100)
    assert len(left.events) == length - 100
    assert client.xlen(key) >= length - 100
    # Somebody else has moved on: the same batch changes nothing.
    assert not events.recorded(batch, keep=0)
    assert events.unrecorded(1000).events == left.events


def test_events_that_the_stream_had_to_drop_are_counted_and_told(jobs: Jobs, caplog):
    client, keys = jobs.deployment.client, jobs.deployment.keys
    for i in range(30):
        jobs.complete(f"t{i}")
    before = client.xlen(keys.events)
    client.xtrim(keys.events, maxlen=20, approximate=False)
    jobs.complete("last")
    with caplog.at_level(logging.ERROR):
        recorded = jobs.recorder.record_once()
    assert (recorded.lost, recorded.problem) == (before - 20, "")
    assert f"events-lost count={before - 20}" in caplog.text
    assert "last" in {record.task_id for record in jobs.store.task_history(*FOREVER, 100).records}
    # They are told once.
    assert jobs.recorder.record_once().lost == 0


def test_a_stream_that_was_deleted_begins_again(jobs: Jobs):
    jobs.complete("t1")
    jobs.record()
    jobs.deployment.client.delete(jobs.deployment.keys.events)
    assert jobs.recorder.record_once().lost == 0
    jobs.complete("t2")
    recorded = jobs.recorder.record_once()
    assert (recorded.events, recorded.results, recorded.lost) == (4, 1, 0)


def test_events_that_cannot_be_read_are_counted_and_the_others_are_recorded(jobs: Jobs, caplog):
    client, key = jobs.deployment.client, jobs.deployment.keys.events
    jobs.complete("t1")
    client.xadd(key, {"event": "finished", "id": "broken", "at": "noon"})
    client.xadd(key, {"event": "placed", "id": "broken", "at": "1.0", "node": "n1"})
    client.xadd(key, {"event": "submitted", "id": "broken", "at": "1.0", "request": "[]", "type": "mixed"})
    client.xadd(key, {"event": "of a later release", "id": "x", "at": "1.0"})
    client.xadd(key, {"nothing": b"\xff\xfe"})
    jobs.complete("t2")
    with caplog.at_level(logging.ERROR):
        recorded = jobs.recorder.record_once()
    assert sum(recorded.skipped.values()) == 3
    assert {reason.partition(":")[0] for reason in recorded.skipped} == {"finished", "placed", "submitted"}
    assert "events-skipped" in caplog.text
    assert len(jobs.store.task_history(*FOREVER, 10).records) == 2
    assert jobs.recorder.record_once() == module.Recorded()


# --- a history that is away


def test_a_history_that_is_away_costs_nothing_and_is_caught_up(jobs: Jobs, door, caplog):
    door.shut()
    for i in range(2):
        jobs.complete(f"t{i}")
        with caplog.at_level(logging.WARNING):
            recorded = jobs.recorder.record_once()
        assert "does not answer" in recorded.problem
        assert recorded.behind == jobs.deployment.client.xlen(jobs.deployment.keys.events)
    assert caplog.text.count("history-away") == 1
    door.open()
    with caplog.at_level(logging.WARNING):
        jobs.catch_up()
    assert caplog.text.count("history-back") == 1
    assert len(jobs.store.task_history(*FOREVER, 10).records) == 2


def test_a_history_that_is_back_is_told_even_where_nothing_happened_meanwhile(jobs: Jobs, door):
    jobs.record()
    door.shut()
    jobs.complete("t1")
    assert jobs.recorder.record_once().problem
    # Another recorder was faster.
    door.open()
    assert jobs.catch_up(jobs.new_recorder()).results == 1
    assert jobs.recorder.record_once() == module.Recorded()


def test_an_attempt_to_reach_it_is_not_made_at_every_call(jobs: Jobs, door):
    recorder = module.Recorder(jobs.deployment, jobs.store, retry_s=3600.0)
    door.shut()
    jobs.complete("t1")
    problem = recorder.record_once().problem
    assert problem
    door.open()
    again = recorder.record_once()
    assert (again.problem, again.behind, again.events) == (problem, 5, 0)


def test_a_history_that_lets_nobody_write_is_said_so(jobs: Jobs, door):
    door.forbid_writes()
    jobs.complete("t1")
    recorded = jobs.recorder.record_once()
    assert "readWrite" in recorded.problem
    assert recorded.behind == 5
    door.open()
    assert jobs.catch_up().results == 1


def test_a_history_that_goes_away_between_two_collections_is_written_again(jobs: Jobs, door, monkeypatch, database):
    jobs.complete("t1")
    write = HistoryStore.write

    def half(self: HistoryStore, changes):
        results = changes.documents.pop(RESULTS)
        write(self, changes)
        changes.documents[RESULTS] = results
        raise HistoryError("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr(HistoryStore, "write", half)
        assert jobs.recorder.record_once().problem == "the connection broke"
    assert everything(database)[RESULTS] == {}
    jobs.record()
    assert len(everything(database)[RESULTS]) == 1
