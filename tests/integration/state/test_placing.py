"""Placing and waiting: what place, place_waiting, waiting and hold promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.exceptions import OutOfMemoryError

from cloudai.state.fleet import read_changes
from cloudai.state.ledger import Ledger

if TYPE_CHECKING:
    from .conftest import Lab


def test_the_first_candidate_that_fits_is_reserved_and_its_doorbell_rings(lab: Lab) -> None:
    lab.join("small", cpu=500)
    lab.join("large", cpu=4000, memory=4096, storage=100, slots=2)
    lab.new_events()

    placement = lab.place("t", "small", "large", cpu=1500, memory=1000, storage=40, decision='{"why":1}')

    assert (placement.status, placement.node, placement.attempt) == ("placed", "large", 1)
    assert lab.free("large") == (2500, 3096, 60, 1, "")
    assert lab.free("small") == (500, 8192, 1000, 8, "")
    assert lab.doorbells("large") == ["t"]
    assert lab.kinds() == ["submitted", "placed"]
    entry = lab.ledger.entry("t")
    assert entry["state"] == "placed"
    assert entry["features"] == "features of large"
    assert float(entry["deadline"]) == pytest.approx(float(entry["arrival"]) + 600.0, abs=1e-5)
    assert lab.ledger.decision("t") == '{"why":1}'
    assert lab.ledger.message("t") == b'{"id":"t","nonce":"n1"}'
    assert lab.ledger.totals()["live"] == 1


@pytest.mark.parametrize(
    "request_",
    [{"cpu": 4001}, {"memory": 8193}, {"storage": 1001}, {"gpu": 1000}],
    ids=lambda r: next(iter(r)),
)
def test_what_exceeds_a_node_in_any_dimension_waits(lab: Lab, request_: dict[str, int]) -> None:
    lab.join("node")
    lab.new_events()
    placement = lab.place("t", "node", **request_)
    assert (placement.status, placement.node) == ("waiting", "")
    assert lab.free("node") == (4000, 8192, 1000, 8, "")
    assert lab.kinds() == ["submitted", "waiting"]


def test_slots_are_a_dimension_too(lab: Lab) -> None:
    lab.join("node", slots=1)
    assert lab.place("t1", "node", cpu=1).status == "placed"
    assert lab.place("t2", "node", cpu=1).status == "waiting"


def test_a_candidate_that_is_unknown_silent_or_draining_gets_nothing(lab: Lab) -> None:
    lab.join("silent")
    lab.let_pass(11)
    lab.join("draining")
    lab.fleet.drain("draining")
    assert lab.place("t", "unknown", "silent", "draining").status == "waiting"


def test_whole_gpus_are_whole_devices_and_a_fraction_goes_where_least_is_left(lab: Lab) -> None:
    lab.join("node", gpus=3)
    assert lab.run("half", "node", gpu=500).devices == (0,)
    assert lab.run("third", "node", gpu=300).devices == (0,)
    two = lab.run("two", "node", gpu=2000)
    assert two.devices == (1, 2)
    assert lab.place("one", "node", gpu=1000).status == "waiting"
    # Two tenths are free on device 0: enough for a tenth, not for a quarter.
    assert lab.place("quarter", "node", gpu=250).status == "waiting"
    assert lab.run("tenth", "node", gpu=100).devices == (0,)
    lab.finish(two)
    assert lab.free("node")[4] == "100,1000,1000"


def test_two_half_free_devices_are_not_one(lab: Lab) -> None:
    lab.join("node", gpus=2)
    lab.place("a", "node", gpu=600)
    lab.place("b", "node", gpu=600)
    assert lab.free("node")[4] == "400,400"
    assert lab.place("c", "node", gpu=700).status == "waiting"


def test_the_same_delivery_twice_is_one_task(lab: Lab) -> None:
    lab.join("node")
    submission = lab.submission("t")
    assert lab.ledger.place(submission, [("node", "")], 0).status == "placed"
    lab.new_events()
    for _ in range(2):
        assert lab.ledger.place(submission, [("node", "")], 0).status == "duplicate"
    claim = lab.take("node")
    assert lab.ledger.place(submission, [("node", "")], 0).status == "duplicate"
    lab.finish(claim)
    assert lab.ledger.place(submission, [("node", "")], 0).status == "duplicate"
    assert lab.kinds() == ["claimed", "finished"]
    assert lab.ledger.totals()["live"] == 0


def test_an_id_that_is_unfinished_is_busy_for_another_submission(lab: Lab) -> None:
    lab.join("node")
    lab.place("placed", "node")
    lab.place("waiting")
    lab.new_events()
    assert lab.place("placed", "node").status == "busy"
    assert lab.place("waiting", "node").status == "busy"
    assert lab.kinds() == []


def test_an_id_that_has_ended_may_be_used_again_and_its_attempts_count_on(lab: Lab) -> None:
    lab.join("node")
    lab.finish(lab.run("t", "node"))
    again = lab.run("t", "node")
    assert again.attempt == 2
    entry = lab.ledger.entry("t")
    assert "finished" not in entry
    assert "sla_success" not in entry
    assert lab.client.ttl(lab.keys.task("t")) == -1
    assert lab.finish(again).status == "finished"


def test_an_id_whose_end_is_not_settled_is_busy(lab: Lab) -> None:
    lab.place("t", expires=lab.at(-1))
    lab.sweep.run()
    assert lab.state("t") == "expired"
    assert lab.place("t").status == "busy"
    lab.ledger.settled("t")
    assert lab.place("t").status == "waiting"


def test_past_the_high_water_mark_nothing_is_written_and_running_work_finishes(lab: Lab) -> None:
    lab.join("node")
    small = Ledger(lab.client, lab.keys, lab.deployment.scripts, max_live=2, finished_ttl_s=60, decision_ttl_s=60)
    running = lab.run("t1", "node")
    lab.place("t2", "node")
    lab.new_events()
    assert small.place(lab.submission("t3"), [("node", "")], 0).status == "full"
    assert lab.kinds() == []
    assert lab.ledger.entry("t3") == {}
    lab.finish(running)
    assert small.place(lab.submission("t3"), [("node", "")], 0).status == "placed"


def test_a_full_memory_refuses_submissions_whole_and_lets_running_work_end(lab: Lab) -> None:
    lab.join("node")
    running = lab.run("t1", "node")
    lab.place("t2", "node")
    lab.place("t3", cpu=5000)
    lab.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            lab.place("t4", "node")
        lab.beat("node")
        assert lab.finish(running).status == "finished"
        assert lab.finish(lab.take("node")).status == "finished"
        assert lab.ledger.cancel("t3") == ("cancelled", "")
        assert lab.ledger.settled("t3")
        lab.sweep.run()
    finally:
        lab.client.config_set("maxmemory", 0)
    assert lab.ledger.entry("t4") == {}
    assert lab.ledger.totals()["live"] == 0


def test_fallbacks_are_counted_with_their_reason(lab: Lab) -> None:
    lab.join("node")
    lab.place("t1", "node")
    lab.place("t2", "node", fallback="no_parameters")
    totals = lab.ledger.totals()
    assert (totals["placements"], totals["fallback:no_parameters"]) == (2, 1)


# --- waiting


def test_a_task_waits_behind_those_of_its_shape_even_if_it_would_fit(lab: Lab) -> None:
    lab.place("first")
    lab.join("node")
    assert lab.place("second", "node").status == "waiting"
    assert lab.place("other", "node", cpu=500).status == "placed"
    assert lab.place_waiting("first", "node") == "node"
    assert lab.place_waiting("second", "node") == "node"
    assert lab.place("third", "node").status == "placed"


def test_waiting_tasks_come_by_deadline_and_by_priority_within_its_second(lab: Lab) -> None:
    second = float(int(lab.now()) + 100)
    lab.place("late", deadline=second + 1)
    lab.place("low", deadline=second, priority=9)
    lab.place("high", deadline=second + 0.9, priority=0)
    lab.place("middle", deadline=second + 0.5, priority=4)
    assert [task_id for task_id, _ in lab.ledger.waiting_ids(10)] == ["high", "middle", "low", "late"]
    (shape,) = lab.ledger.waiting(0).shapes
    assert [task.task_id for task in shape.tasks] == ["high", "middle", "low", "late"]
    assert [task.priority for task in shape.tasks] == [0, 4, 9, 0]


def test_late_tasks_do_not_hide_those_that_can_still_make_it(lab: Lab) -> None:
    now = lab.now()
    for i in range(5):
        lab.place(f"late{i}", deadline=now - 100 + i)
    lab.place("soon", deadline=now + 50)
    (shape,) = lab.ledger.waiting(0, each=2).shapes
    assert [task.task_id for task in shape.tasks] == ["soon", "late0", "late1"]
    assert shape.request == '{"shape":"1000/1024/0/0"}'
    assert lab.ledger.waiting(0).total == 6


def test_the_first_of_a_long_queue_do_not_hide_those_behind_them(lab: Lab) -> None:
    now = lab.now()
    for i in range(27):
        lab.place(f"t{i:02}", deadline=now + 50 + i)
    (shape,) = lab.ledger.waiting(0, each=3).shapes
    first, behind = shape.tasks[:3], shape.tasks[3:]
    assert [(task.task_id, task.further) for task in first] == [(f"t{i:02}", False) for i in range(3)]
    assert all(task.further for task in behind)
    assert [task.task_id for task in behind] == [f"t{i:02}" for i in range(4, 27, 2)]
    for each, further in ((26, 1), (27, 0), (50, 0)):
        (shape,) = lab.ledger.waiting(0, each=each).shapes
        assert [task.task_id for task in shape.tasks] == [f"t{i:02}" for i in range(27)]
        assert sum(task.further for task in shape.tasks) == further


def test_shapes_that_fit_nowhere_do_not_hide_the_others_for_ever(lab: Lab) -> None:
    now = lab.now()
    for i in range(20):
        lab.place(f"hopeless{i}", cpu=10_000 + i, deadline=now - 1000 + i)
    lab.place("late too", cpu=1, deadline=now - 1)
    seen = set()
    for _ in range(200):
        seen |= {task.task_id for shape in lab.ledger.waiting(0, shapes=8).shapes for task in shape.tasks}
    assert "late too" in seen
    assert len(lab.ledger.waiting(0, shapes=8).shapes) <= 8


def test_place_waiting_reserves_records_and_rings(lab: Lab) -> None:
    lab.place("t", cpu=3000)
    lab.join("node", cpu=2000)
    assert lab.place_waiting("t", "node") == ""
    lab.join("big", cpu=3000)
    lab.new_events()
    assert lab.place_waiting("t", "node", "big") == "big"
    assert lab.place_waiting("t", "big") == "gone"
    assert lab.place_waiting("nobody", "big") == "gone"
    assert lab.kinds() == ["placed"]
    assert lab.ledger.decision("t") == '{"late":1}'
    assert lab.ledger.waiting(0).total == 0
    assert lab.take("big").attempt == 1


def test_a_held_node_takes_only_the_task_that_it_is_held_for(lab: Lab) -> None:
    lab.join("node")
    lab.place("large", cpu=5000)
    lab.place("starving", cpu=4000)
    lab.new_events()
    assert lab.ledger.hold("starving", "node")
    assert lab.ledger.hold("starving", "node")
    assert lab.kinds() == ["held"]
    assert not lab.ledger.hold("large", "node")
    assert lab.place("small", "node", cpu=10).status == "waiting"
    assert lab.place_waiting("starving", "node") == "node"
    assert lab.fleet.entry("node")["held_for"] == ""
    assert "hold" not in lab.ledger.entry("starving")


@pytest.mark.parametrize("how", ["cancel", "expire", "drain", "stale", "restart", "other node"])
def test_a_hold_ends_with_its_reason(lab: Lab, how: str) -> None:
    lab.join("node")
    lab.join("other")
    lab.place("t", cpu=9000, expires=lab.at(1000))
    assert lab.ledger.hold("t", "node")
    if how == "cancel":
        lab.ledger.cancel("t")
    elif how == "expire":
        lab.let_pass(1001)
        lab.sweep.run()
    elif how == "drain":
        lab.fleet.drain("node")
    elif how == "stale":
        lab.sweep_through(40, "other")
    elif how == "restart":
        lab.let_pass(11)
        lab.join("node", "2")
    elif how == "other node":
        lab.ledger.hold("t", "other")
    assert lab.fleet.entry("node")["held_for"] == ""
    assert lab.ledger.entry("t").get("hold", "") == ("other" if how == "other node" else "")
    lab.settle_all()


def test_only_a_task_that_waits_for_capacity_can_hold_a_node_that_is_up(lab: Lab) -> None:
    lab.join("node")
    lab.place("placed", "node")
    lab.place("delayed", eta=lab.at(100))
    lab.place("waiting", cpu=9000)
    assert not lab.ledger.hold("placed", "node")
    assert not lab.ledger.hold("delayed", "node")
    assert not lab.ledger.hold("unknown", "node")
    lab.fleet.drain("node")
    assert not lab.ledger.hold("waiting", "node")


# --- ETA


def test_an_eta_task_waits_for_its_time_then_for_capacity(lab: Lab) -> None:
    lab.join("node")
    eta = lab.at(50)
    lab.new_events()
    assert lab.place("t", "node", eta=eta, sla_s=7).status == "delayed"
    entry = lab.ledger.entry("t")
    assert float(entry["arrival"]) == pytest.approx(eta, abs=1e-5)
    assert float(entry["deadline"]) == pytest.approx(eta + 7, abs=1e-5)
    assert lab.place_waiting("t", "node") == "gone"
    lab.sweep.run()
    assert lab.ledger.totals()["delayed"] == 1
    lab.let_pass(51)
    lab.beat("node")
    assert lab.sweep.run().moved == 1
    assert lab.place_waiting("t", "node") == "node"
    assert lab.kinds() == ["submitted", "waiting", "waiting", "placed"]


def test_an_eta_that_has_passed_is_none(lab: Lab) -> None:
    lab.join("node")
    assert lab.place("t", "node", eta=lab.at(-5)).status == "placed"


def test_answers_carry_what_changed_in_the_fleet(lab: Lab) -> None:
    lab.join("a")
    lab.join("b")
    first = lab.place("t1", "a")
    rows = read_changes(first.changes)
    assert sorted(row[0] for row in rows) == ["a", "b"]
    since = max(int(row[1]) for row in rows)
    second = lab.ledger.place(lab.submission("t2"), [("b", "")], since)
    assert [row[0] for row in read_changes(second.changes)] == ["b"]


def test_a_late_placement_keeps_its_own_prediction(lab: Lab) -> None:
    lab.join("a", slots=0)
    lab.place("t")
    lab.join("b")
    assert lab.place_waiting("t", "b") == "b"
    entry = lab.ledger.entry("t")
    assert (entry["predicted"], entry["parameters"], entry["features"]) == ("2.5", "7", "features of b")
