"""What every store of the history must do, on whichever server."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

import bson
import pytest

from cloudai.history.collections import (
    ASSIGNMENTS,
    GA_EPOCHS,
    PARAMETERS,
    RESULTS,
    TASKS,
    TAU_HISTORY,
    WORKER_REGISTRY,
    WORKER_STATS,
)
from cloudai.history.documents import Changes
from cloudai.history.errors import HistoryReadOnly, HistoryUnavailable
from cloudai.history.store import HistoryStore

DAY_S = 86_400.0
#: Whole seconds, and well within the retention: a server may drop older documents at any time.
THEN = float(round(time.time()) - 7200)


def result(number: int, at: float = THEN, **fields: Any) -> dict[str, Any]:
    """A document of RESULTS as the recorder writes it."""
    return {
        "task_id": f"t{number}", "attempt": 1, "worker_id": "n1", "task_type": "cpu-light", "outcome": "succeeded",
        "final": True, "arrival_time": at - 3, "deadline": at + 7, "actual_start": at - 2, "actual_finish": at,
        "actual_runtime": 2.0, "sla_success": True, "cpu_used": 2.0, "mem_used": 1.0, "gpu_used": 0.0, "cpu": 1.0,
        "memory": 0.5, "gpu": 0.0, "storage": 0.0, "load_at_start": 0.5, "overload_time": 0.0, "tau": 5.0,
        "predicted_runtime": 6.0, "features": [0.25, 0.125, 0.0, 0.5], "parameters_version": 3, "family": "",
        "seq": f"{number:030d}", "at": datetime.fromtimestamp(at, UTC), **fields,
    }  # fmt: skip


def written(store: HistoryStore, collection: str, documents: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Write as the recorder does; what was refused."""
    changes = Changes()
    for document_id, fields in documents.items():
        changes.set(collection, document_id, fields)
    return dict(store.write(changes))


def results(store: HistoryStore, *documents: dict[str, Any]) -> None:
    assert written(store, RESULTS, {f"{d['task_id']}/1": d for d in documents}) == {}


def published(store: HistoryStore, version: int, at: float, json: str = "{}", source: str = "epoch") -> None:
    fields = {"seq": str(version), "version": version, "json": json, "source": source, "published_at": at}
    assert written(store, PARAMETERS, {f"{version}": fields}) == {}


# --- reading by time


def test_the_history_is_read_by_time_newest_first(store):
    results(store, *(result(i, THEN + i) for i in range(5)))
    read = store.task_history(THEN + 1, THEN + 4, 100)
    assert [record.task_id for record in read.records] == ["t3", "t2", "t1"]
    assert not read.capped
    newest = read.records[0]
    assert (newest.task_type, newest.outcome, newest.sla_success) == ("cpu-light", "succeeded", True)
    assert (newest.actual_runtime, newest.tau, newest.predicted_runtime) == (2.0, 5.0, 6.0)
    assert newest.features == (0.25, 0.125, 0.0, 0.5)
    assert newest.parameters_version == 3


def test_an_empty_history_has_nothing(store):
    assert store.task_history(0.0, THEN, 10_000).records == ()
    assert store.worker_stats(0.0, THEN).records == ()
    assert store.tau_history(0.0, THEN) == []
    assert store.epochs() == []
    assert store.parameters() == []
    assert store.task("nobody") is None


def test_a_cap_leaves_every_type_and_node_its_share(store):
    many = [result(i, THEN + i, worker_id=f"n{i % 2}") for i in range(300)]
    rare = [result(1000 + i, THEN + i, task_type="gpu-training", worker_id="g") for i in range(5)]
    old = [result(2000, THEN, task_type="dl", worker_id="g")]
    results(store, *many, *rare, *old)
    read = store.task_history(0.0, THEN + 1000, 46)
    assert read.capped
    assert len(read.records) == 46
    by_node = {node: [r for r in read.records if r.worker_id == node] for node in ("n0", "n1", "g")}
    # Old labels are read as what they are now, so the old record is one of the rare kind.
    assert len(by_node["g"]) == 6
    assert {record.task_type for record in by_node["g"]} == {"gpu-training"}
    assert (len(by_node["n0"]), len(by_node["n1"])) == (20, 20)
    newest = sorted((r.actual_finish for r in by_node["n0"]), reverse=True)
    assert newest[0] == THEN + 298
    assert newest[-1] == THEN + 298 - 2 * 19
    finishes = [record.actual_finish for record in read.records]
    assert finishes == sorted(finishes, reverse=True)


def test_what_cannot_be_read_is_left_out_and_counted_by_reason(store, database):
    results(store, result(1))
    alien = [
        {"actual_finish": THEN, "hello": "world"},
        result(2, task_id=17),
        result(3, deadline=None),
        result(4, sla_success="yes"),
        result(5, cpu=-1.0),
        result(6, actual_runtime="long"),
        result(7, attempt=1.5),
        result(8, features=[1.0]),
        result(9, outcome=""),
    ]
    database[RESULTS].insert_many([{**document, "_id": f"alien-{i}"} for i, document in enumerate(alien)])
    read = store.task_history(0.0, THEN + 1, 100)
    assert [record.task_id for record in read.records] == ["t1"]
    assert read.skipped == {
        "task_id is missing or no text": 2,
        "deadline is missing or not finite": 1,
        "sla_success is missing or no truth value": 1,
        "cpu is negative": 1,
        "actual_runtime is no number": 1,
        "attempt is no count": 1,
        "features are not a list of four": 1,
        "outcome is missing or no text": 1,
    }


def test_numbers_that_are_none_and_types_that_are_old_are_read_as_they_are_meant(store, database):
    odd = result(1, actual_runtime=bson.Int64(3), load_at_start=None, features=[0.1, None, 0.0, 0.2], task_type="")
    database[RESULTS].insert_one({**odd, "_id": "odd"})
    (record,) = store.task_history(0.0, THEN + 1, 100).records
    assert (record.actual_runtime, record.load_at_start, record.features) == (3.0, None, None)
    assert record.task_type == "cpu-light"  # inferred from one core


# --- writing


def test_only_what_is_newer_in_the_stream_changes_a_document(store, database):
    def write(seq: str, **fields: Any) -> None:
        assert written(store, TASKS, {"t1": {"seq": seq, **fields}}) == {}

    write("2", state="running", attempt=1)
    write("1", state="submitted", attempt=0)
    write("2", state="something else")
    assert database[TASKS].find_one() == {"_id": "t1", "seq": "2", "state": "running", "attempt": 1}
    write("3", state="succeeded")
    assert database[TASKS].find_one() == {"_id": "t1", "seq": "3", "state": "succeeded", "attempt": 1}


def test_the_newest_stays_whoever_writes_first(store, database):
    """Several recorders at once, each with another part of the same stream."""
    ids = [f"t{i}" for i in range(200)]
    ready = threading.Barrier(4)

    def recorder(seq: int) -> None:
        ready.wait()
        for _ in range(3):
            written(store, TASKS, {i: {"seq": f"{seq}", f"field{seq}": seq} for i in ids})

    threads = [threading.Thread(target=recorder, args=(seq,)) for seq in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = list(database[TASKS].find())
    assert len(found) == 200
    assert {document["seq"] for document in found} == {"3"}
    assert {document["field3"] for document in found} == {3}


def test_a_document_that_no_server_takes_is_counted_and_the_others_are_written(store, database):
    refused = written(
        store,
        TASKS,
        {"good": {"seq": "1"}, "huge": {"seq": "1", "attempt": 1 << 70}, "also good": {"seq": "1"}},
    )
    assert sum(refused.values()) == 1
    assert next(iter(refused)).startswith("TASKS: ")
    assert {document["_id"] for document in database[TASKS].find()} == {"good", "also good"}


def test_a_task_is_found_with_its_attempts(store):
    written(store, TASKS, {"a": {"seq": "1", "task_id": "a"}, "a/b": {"seq": "1", "task_id": "a/b"}})
    ids = {"a/1": ("a", 1), "a/2": ("a", 2), "a/b/1": ("a/b", 1), "aa/1": ("aa", 1)}
    for collection in (ASSIGNMENTS, RESULTS):
        documents = {key: {"seq": "1", "task_id": t, "attempt": n} for key, (t, n) in ids.items()}
        written(store, collection, documents)
    found = store.task("a")
    assert [d["_id"] for d in found["assignments"]] == ["a/1", "a/2"]
    assert [d["_id"] for d in found["results"]] == ["a/1", "a/2"]


# --- nodes


def test_a_node_over_a_window(store):
    written(
        store, WORKER_REGISTRY,
        {"n1": {"seq": "1", "worker_id": "n1", "cpu": 8.0, "memory": 16.0, "gpu": 1, "state": "up", "since": THEN}},
    )  # fmt: skip
    begun = THEN - 1000
    clocks = {THEN: (100.0, 30.0), THEN + 600: (220.0, 90.0)}
    for at, (overload, excess) in clocks.items():
        written(
            store, WORKER_STATS,
            {f"n1/i/{at}": {
                "seq": str(at), "worker_id": "n1", "incarnation": "i", "registered_at": begun, "time": at,
                "overload_s": overload, "overload_excess_s": excess, "at": datetime.fromtimestamp(at, UTC),
            }},
        )  # fmt: skip
    results(
        store,
        result(1, THEN + 100),
        result(2, THEN + 200, sla_success=False, outcome="failed"),
        result(3, THEN + 250, sla_success=False, outcome="cancelled"),
        result(4, THEN + 300, sla_success=False, final=False, outcome="retried"),
        result(5, THEN - 900),
    )
    (stats,) = store.worker_stats(THEN, THEN + 300).records
    # The fifth ended before the window, the fourth just behind it.
    assert (stats.worker_id, stats.tasks_run, stats.sla_violations) == ("n1", 3, 1)
    assert (stats.total_runtime, stats.cpu_used_total, stats.mem_used_total) == (6.0, 6.0, 3.0)
    assert stats.total_time == pytest.approx(300)
    assert stats.overload_time == pytest.approx(60)
    assert stats.overload_excess == pytest.approx(30)
    assert (stats.cpu, stats.memory, stats.gpu) == (8.0, 16.0, 1.0)


# --- epochs, parameters, tau


def test_epochs_come_back_newest_first_with_their_time(store, database):
    for i in range(3):
        store.append_epoch({"_id": f"e{i}", "at": THEN + i, "fitness": float("nan"), "theta": (0.1, 0.2)})
    store.append_epoch({"_id": "e2", "at": THEN + 2, "fitness": 0.5, "best": {1: float("inf")}})
    unnamed = store.append_epoch({"at": THEN - 1, "fitness": 0.25})
    database[GA_EPOCHS].insert_one({"no": "time"})
    epochs = store.epochs(10)
    assert [epoch["_id"] for epoch in epochs] == ["e2", "e1", "e0", unnamed]
    assert [epoch["at"] for epoch in epochs] == [THEN + 2, THEN + 1, THEN, THEN - 1]
    assert (epochs[0]["fitness"], epochs[0]["best"]) == (0.5, {"1": None})
    assert (epochs[1]["fitness"], epochs[1]["theta"]) == (None, [0.1, 0.2])
    assert len(store.epochs(2)) == 2


def test_parameters_come_back_newest_first(store, database):
    published(store, 1, THEN)
    published(store, 2, THEN + 1, '{"alpha": 5}', "file mine.json")
    database[PARAMETERS].insert_one({"published_at": THEN + 2, "version": "new"})
    first, second = store.parameters()
    assert (first.version, first.json, first.source, first.at) == (2, '{"alpha": 5}', "file mine.json", THEN + 1)
    assert second.version == 1


def test_tau_over_time(store, database):
    samples = {
        f"cpu-light/{i}": {"seq": str(i), "task_type": "cpu-light", "time": THEN + i, "tau": 5.0 + i, "runtime": 7.0}
        for i in range(3)
    }
    samples["mixed/hand/1"] = {"seq": "9", "task_type": "mixed", "time": THEN + 1, "tau": 3.0, "runtime": None}
    written(store, TAU_HISTORY, samples)
    database[TAU_HISTORY].insert_one({"time": THEN, "tau": "quick"})
    found = store.tau_history(THEN, THEN + 2)
    assert [(s.task_type, s.at - THEN, s.tau, s.runtime) for s in found if s.task_type == "cpu-light"] == [
        ("cpu-light", 0.0, 5.0, 7.0), ("cpu-light", 1.0, 6.0, 7.0),
    ]  # fmt: skip
    (by_hand,) = store.tau_history(0.0, THEN + 10, task_types=["mixed"])
    assert (by_hand.tau, by_hand.runtime) == (3.0, None)


# --- retention


def test_what_is_older_than_the_retention_is_dropped(store, database):
    now = time.time()
    old, new = now - 31 * DAY_S, now - 29 * DAY_S
    results(store, result(1, old), result(2, new))
    for at in (old, new):
        store.append_epoch({"_id": str(at), "at": at})
    published(store, 1, old - 1)
    published(store, 2, old)
    nodes = {
        name: {"seq": "1", "worker_id": name, "state": state, "since": since}
        for name, state, since in (("up", "up", old), ("gone", "lost", old), ("just gone", "down", new))
    }
    written(store, WORKER_REGISTRY, nodes)
    dropped = store.prune(now)
    assert {name: count for name, count in dropped.items() if count} == {
        RESULTS: 1, GA_EPOCHS: 1, PARAMETERS: 1, WORKER_REGISTRY: 1,
    }  # fmt: skip
    assert [record.task_id for record in store.task_history(0.0, now, 10).records] == ["t2"]
    # The parameters in force may be older than anything.
    assert [parameters.version for parameters in store.parameters()] == [2]
    assert {node["_id"] for node in database[WORKER_REGISTRY].find()} == {"up", "just gone"}
    assert sum(store.prune(now).values()) == 0


def test_indexes_are_made_once_and_follow_a_changed_retention(store, door, database):
    store.prepare()
    store.prepare()
    indexes = database[RESULTS].index_information()
    fields = [tuple(name for name, _ in index["key"]) for index in indexes.values()]
    assert sorted(fields) == [("_id",), ("actual_finish",), ("at",), ("task_type", "actual_finish")]
    with HistoryStore(door.url, database.name, retention_days=7.0) as later:
        later.prepare()
    (index,) = (i for i in database[RESULTS].index_information().values() if dict(i["key"]).keys() == {"at"})
    assert index["expireAfterSeconds"] == 7 * DAY_S


# --- when it does not go well


def test_a_server_that_is_away_is_said_so(store, door):
    door.shut()
    with pytest.raises(HistoryUnavailable, match="does not answer") as error:
        store.task_history(0.0, THEN, 10)
    assert "optimiser.mongo_url" in str(error.value)
    door.open()
    deadline = time.monotonic() + 60
    while True:  # until the driver has noticed
        try:
            return store.ping()
        except HistoryUnavailable:
            assert time.monotonic() < deadline


def test_a_server_that_lets_nobody_write_is_said_so(store, door):
    door.forbid_writes()
    with pytest.raises(HistoryReadOnly, match="readWrite"):
        written(store, TASKS, {"t1": {"seq": "1"}})
    assert store.task_history(0.0, THEN, 10).records == ()


def test_a_password_is_not_shown():
    with HistoryStore("mongodb://me:secret@localhost:1", "history", timeout_s=0.05) as store:
        with pytest.raises(HistoryUnavailable) as error:
            store.ping()
        assert "secret" not in str(error.value)
        assert "me:***@localhost:1" in store.where
