"""The campaign's own instruments: a witness that sees overlaps and pauses, an audit of the history that sees what is
missing, plans that follow from their seed.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cloudai.history.collections import ASSIGNMENTS, RESULTS, TASKS

from .campaign import Evidence
from .history import unrecorded
from .load import Submitted
from .plan import full_plan, short_plan
from .verdict import judge
from .witness import attend, overlaps, read_run, read_runs


def run(*marks: str):
    found = read_run("job", marks)
    assert found is not None
    return found


def test_runs_that_share_a_moment_overlap() -> None:
    one, other = run("start 1.0", "tick 1.2", "tick 1.4"), run("start 1.3", "tick 1.5", "end 1.7")
    ((_, _, seconds),) = overlaps([one, other])
    assert round(seconds, 3) == 0.1


def test_a_run_that_begins_when_the_other_is_frozen_does_not_overlap() -> None:
    frozen = run("start 1.0", "tick 1.2", "tick 9.0", "end 9.2")
    assert not overlaps([frozen, run("start 3.0", "tick 3.2", "end 3.4")])
    assert overlaps([frozen, run("start 9.1", "tick 9.3", "end 9.5")])


def test_a_line_that_was_cut_off_is_left_out() -> None:
    assert read_run("job", ["start 1.0", "tick 1.2", "tic"]).stretches == ((1.0, 1.2),)
    assert read_run("job", ["sta"]) is None


def test_a_job_leaves_its_witness(tmp_path: Path) -> None:
    attend(str(tmp_path), "job", 0.2)
    ((only,),) = read_runs(tmp_path).values()
    assert only.key == "job"
    assert only.ended is not None
    assert only.ended > only.began


def test_a_history_that_lacks_a_document_is_not_whole() -> None:
    end = {"task_id": "a", "attempt": 1, "outcome": "succeeded", "final": True}
    whole = {TASKS: {"a": {"state": "succeeded"}}, ASSIGNMENTS: {"a/1": {}}, RESULTS: {"a/1/0": end}}
    happened = {
        "states": {"a": "succeeded", "b": ""},
        "accepted": [["a", "b"]],
        "events": [
            {"event": "submitted", "id": "a"},
            {"event": "placed", "id": "a", "attempt": "1"},
            {"event": "finished", "id": "a", "attempt": "1", "outcome": "succeeded", "final": "1"},
        ],
        "succeeded": {"a"},
    }
    assert unrecorded(whole, **happened) == {}
    for collection in whole:
        assert set(unrecorded({**whole, collection: {}}, **happened)) == {"a"}
    behind = {**whole, TASKS: {"a": {"state": "running"}}}
    assert unrecorded(behind, **happened) == {"a": "TASKS says running, the ledger succeeded"}
    failed = {**whole, RESULTS: {"a/1/0": {**end, "outcome": "failed"}}}
    assert set(unrecorded(failed, **happened)) == {"a"}


def test_recoveries_are_judged_where_redis_was_there_and_another_node_could_take_the_task() -> None:
    found = Evidence(full_plan(1, 500))
    found.submitted = [
        Submitted(kind, [name], accepted=True)
        for name, kind in (("usual", "python"), ("outage", "process"), ("bound", "docker"))
    ]
    for name, again_at in (("usual", 15.0), ("outage", 40.0), ("bound", 18.0)):
        found.events += [
            {"id": name, "event": "claimed", "node": "gone", "at": "5.0"},
            {"id": name, "event": "waiting", "reason": "node lost", "at": "14.0"},
            {"id": name, "event": "claimed", "node": "heir", "at": str(again_at)},
            {"id": name, "event": "finished", "outcome": "succeeded", "final": "1", "at": str(again_at + 1)},
        ]
        found.states[name], found.results[name] = "succeeded", ("SUCCESS", None)
    found.heartbeats, found.outages = {"gone": [6.0, 7.0]}, [(30.0, 32.0)]
    verdict = judge(found)
    assert (verdict.recovered, verdict.recoveries, verdict.recovery_p95_s) == (3, 1, 8.0)
    assert (verdict.recoveries_across_outages, verdict.recoveries_on_the_same_node) == (1, 1)
    assert not verdict.broken
    found.heartbeats["gone"] = [6.0]
    found.events[2]["at"] = "17.5"
    late = judge(found)
    assert late.broken == ["recovery_p95_s 11.5 above 11"]
    assert late.details[0].startswith("slow: 11.5 s: usual: ")


def test_a_plan_follows_from_its_seed() -> None:
    assert full_plan(7, 500) == full_plan(7, 500) != full_plan(8, 500)
    assert short_plan(7, 50) == short_plan(7, 50) != short_plan(8, 50)


def test_the_full_plan_does_what_is_promised() -> None:
    done = Counter(injection.what for injection in full_plan(1, 500).injections)
    assert done["kill node"] == 50
    assert done["redis away"] == 20
    assert done["lose machine"] == 3
    others = {
        "freeze node", "cut network", "fill disk", "fill redis", "restart engine", "restart node", "kill beat",
        "kill producer", "kill control", "poison",
    }  # fmt: skip
    assert others <= done.keys()
    assert {i.how for i in full_plan(1, 500).injections if i.what == "kill node"} == {"at once", "late", "never"}
