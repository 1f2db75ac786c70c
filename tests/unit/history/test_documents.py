"""From events to documents: the same for whoever reads them, and unharmed by what cannot be read."""

from __future__ import annotations

import json

import pytest

from cloudai.history.collections import ASSIGNMENTS, RESULTS, TASKS, TAU_HISTORY, WORKER_REGISTRY
from cloudai.history.documents import changes_of, sequence

SUBMITTED = {
    "event": "submitted", "id": "t", "at": "100.0", "name": "jobs.work", "type": "mixed",
    "request": json.dumps({"cpu_milli": 500, "memory_kib": 1 << 19, "gpu_milli": 1000, "storage_kib": 1 << 20}),
    "arrival": "100.0", "deadline": "120.0", "tau": "10", "parameters": "4", "predicted": "11.5",
    "family": "f", "user": "u",
}  # fmt: skip
FINISHED = {
    "event": "finished", "id": "t", "at": "110.0", "node": "n", "attempt": "1", "outcome": "succeeded", "final": "1",
    "reason": "", "type": "mixed", "arrival": "100.0", "deadline": "120.0", "started": "104.0", "runtime": "5.5",
    "sla_success": "1", "features": "[0.1,0.2,0.3,0.4]", "tau": "10", "predicted": "11.5", "parameters": "4",
    "family": "f", "tau_old": "10", "tau_new": "9.1", "cpu": "500", "memory": "524288", "gpu": "2000", "storage": "0",
}  # fmt: skip


def documents(*events, collection):
    changes = changes_of([(f"{i}-0", event) for i, event in enumerate(events, 1)])
    assert not changes.skipped
    return changes.documents[collection]


def test_entries_sort_as_the_stream_does():
    entries = ["9-0", "10-0", "10-2", "10-10", "1764000000000-0"]
    assert sorted(map(sequence, reversed(entries))) == [sequence(entry) for entry in entries]


def test_a_submission_tells_what_was_asked():
    (task,) = documents(SUBMITTED, collection=TASKS).values()
    assert (task["cpu"], task["memory"], task["gpu"], task["storage"]) == (0.5, 0.5, 1.0, 1.0)
    assert (task["tau"], task["predicted_runtime"], task["parameters_version"]) == (10.0, 11.5, 4)
    assert (task["family"], task["user_id"], task["state"]) == ("f", "u", "submitted")


def test_use_that_was_not_measured_is_the_reservation_over_the_runtime():
    (result,) = documents(FINISHED, collection=RESULTS).values()
    assert (result["cpu_used"], result["mem_used"], result["gpu_used"]) == (0.5 * 5.5, 0.5 * 5.5, 2.0 * 5.5)


def test_use_of_an_attempt_without_a_runtime_counts_from_its_start():
    failed = {**FINISHED, "runtime": "", "outcome": "failed", "tau_new": ""}
    (result,) = documents(failed, collection=RESULTS).values()
    assert result["cpu_used"] == 0.5 * 6.0
    assert result["actual_runtime"] is None


@pytest.mark.parametrize("number", ["nan", "inf", "", "soon"])
def test_numbers_that_are_none_are_left_out(number):
    odd = {**FINISHED, "runtime": number, "predicted": number, "cpu_seconds": number, "overload_s": number}
    (result,) = documents(odd, collection=RESULTS).values()
    assert result["actual_runtime"] is result["predicted_runtime"] is result["overload_time"] is None
    assert result["cpu_used"] == 0.5 * 6.0


def test_features_that_are_none_are_left_out():
    for features in ("", "no JSON", "[1,2]", '{"a":1}'):
        (result,) = documents({**FINISHED, "features": features}, collection=RESULTS).values()
        assert result["features"] is result["load_at_start"] is None
    (result,) = documents({**FINISHED, "features": "[0.1,null,0,0.5]"}, collection=RESULTS).values()
    assert (result["features"], result["load_at_start"]) == ([0.1, None, 0.0, 0.5], 0.5)


def test_learned_values_of_tau_are_thinned_and_those_set_by_hand_are_not():
    learned = [{**FINISHED, "at": f"{at}", "tau_new": f"{at / 10}"} for at in (101.0, 105.0, 109.0, 111.0)]
    by_hand = [{"event": "tau", "id": "", "at": f"{at}", "type": "mixed", "tau_new": "50"} for at in (106.0, 107.0)]
    found = documents(*learned, *by_hand, collection=TAU_HISTORY).values()
    assert sorted((d["time"], d["tau"], d["runtime"]) for d in found) == [
        (106.0, 50.0, None), (107.0, 50.0, None), (109.0, 10.9, 5.5), (111.0, 11.1, 5.5),
    ]  # fmt: skip


def test_a_lost_placement_says_why():
    placed = {"event": "placed", "id": "t", "at": "101", "node": "n", "attempt": "1", "features": "[0,0,0,0]"}
    waits = {"event": "waiting", "id": "t", "at": "130", "reason": "node lost", "node": "n", "attempt": "1"}
    changes = changes_of([("1-0", placed), ("2-0", waits)])
    assert changes.documents[ASSIGNMENTS]["t/1"]["given_up_because"] == "node lost"
    assert changes.documents[TASKS]["t"]["state"] == "waiting"


def test_nodes_come_and_go():
    registered = {
        "event": "registered", "id": "", "at": "1", "node": "n", "incarnation": "i", "cpu": "4000", "memory": "1048576",
        "gpu": "2", "storage": "0", "slots": "4", "labels": '{"a.b$": "c"}',
    }  # fmt: skip
    ends = [{"event": kind, "id": "", "at": "2", "node": "n"} for kind in ("draining", "stale", "lost")]
    back = {"event": "returned", "id": "", "at": "3", "node": "n", "state": "draining"}
    states = [
        documents(registered, *events, collection=WORKER_REGISTRY)["n"]["state"]
        for events in ([], ends[:1], ends[:2], ends, [*ends, back])
    ]
    assert states == ["up", "draining", "stale", "lost", "draining"]
    anew = {"event": "announced", "id": "", "at": "2", "node": "n", "labels": '{"a.b$": "d"}'}
    node = documents(registered, anew, collection=WORKER_REGISTRY)["n"]
    assert (node["labels"], node["state"], node["cpu"]) == ([{"name": "a.b$", "value": "d"}], "up", 4.0)


@pytest.mark.parametrize(
    "event",
    [
        {**FINISHED, "at": "nan"},
        {**FINISHED, "deadline": "inf"},
        {**FINISHED, "attempt": "one"},
        {key: value for key, value in FINISHED.items() if key != "outcome"},
        {**SUBMITTED, "request": "[1]"},
        {**SUBMITTED, "request": "{"},
        {"event": "registered", "id": "", "at": "1"},
    ],
)
def test_an_event_that_cannot_be_read_is_counted_and_changes_nothing(event):
    changes = changes_of([("1-0", event), ("2-0", SUBMITTED)])
    assert sum(changes.skipped.values()) == 1
    assert [key for collection in changes.documents.values() for key in collection] == ["t"]


def test_events_of_other_releases_are_passed_over():
    changes = changes_of([("1-0", {"event": "thawed", "id": "t", "at": "1"}), ("2-0", {"no": "kind"})])
    assert not changes.skipped
    assert not changes.documents
