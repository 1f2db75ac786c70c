"""The fleet: joining, silence, loss, leaving, and what the sweep makes of time."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from cloudai.names import PLACE_QUEUE, node_queue
from cloudai.state.fleet import ELSEWHERE, read_changes, read_row

from .conftest import MAX_ATTEMPTS

if TYPE_CHECKING:
    from .conftest import Lab

FULL = (4000, 8192, 1000, 8, "")


# --- joining


def test_a_node_is_seen_with_what_it_announces(lab: Lab) -> None:
    assert lab.join("node", cpu=2500, memory=100, gpus=2, storage=9, slots=3).accepted
    assert lab.fleet.names() == ["node"]
    (row,) = read_changes(lab.fleet.refresh(0, 10, 0).changes)
    node = read_row(row, lab.fleet.fixed(["node", "unknown"])["node"])
    assert (node.name, node.cpu_capacity, node.cpu_available, node.accepting) == ("node", 2500, 2500, True)
    assert (node.gpu_free, node.labels, node.slots_available) == ((1000, 1000), {"zone": "z"}, 3)
    assert lab.fleet.entry("node")["host"] == "h"
    assert lab.fleet.entry("unknown") == {}
    assert lab.kinds() == ["registered"]


def test_a_second_live_incarnation_is_refused(lab: Lab) -> None:
    lab.join("node", "1")
    lab.let_pass(4)
    lab.new_events()
    answer = lab.join("node", "2")
    assert (answer.accepted, answer.holder) == (False, "1")
    assert answer.holder_silent_s >= 4
    assert lab.kinds() == []
    assert lab.beat("node", "1") == "ok"
    lab.let_pass(11)
    assert lab.join("node", "2").accepted
    assert lab.beat("node", "1") == "superseded"
    assert lab.beat("node", "2") == "ok"


def test_a_node_that_signed_off_can_be_started_again_at_once(lab: Lab) -> None:
    lab.join("node", "1")
    assert lab.fleet.sign_off("node", "1") == "down"
    assert lab.beat("node", "1") == "down"
    assert lab.join("node", "2").accepted
    assert lab.fleet.sign_off("node", "1") == "superseded"
    assert lab.fleet.entry("node")["state"] == "up"


# --- announcing something else


def test_a_label_that_a_node_has_no_longer_takes_back_what_was_placed_for_it(lab: Lab) -> None:
    lab.join("node")
    asks = {"constraints": {"zone": "z"}}
    running = lab.run("running", "node", **asks)
    lab.place("for the label", "node", **asks)
    lab.place("for any node", "node")
    lab.new_events()
    assert lab.fleet.announce("node", "1", labels={"zone": "gone"}, home="here") == "up"
    assert [(one.kind, one.task_id) for one in lab.new_events()] == [("announced", ""), ("waiting", "for the label")]
    states = [lab.state(task_id) for task_id in ("running", "for the label", "for any node")]
    assert states == ["running", "waiting", "placed"]
    assert lab.doorbells("node") == ["for any node"]
    assert lab.finish(running).status == "finished"
    lab.finish(lab.take("node"))
    assert lab.free("node") == FULL


def test_a_node_is_kept_no_longer_for_a_task_that_asks_for_a_label_it_lost(lab: Lab) -> None:
    lab.join("node")
    lab.place("filling", "node", cpu=4000)
    lab.place("starving", "node", cpu=4000, constraints={"zone": "z"})
    assert lab.ledger.hold("starving", "node")
    lab.fleet.announce("node", "1", labels={}, home="here")
    assert lab.fleet.entry("node")["held_for"] == ""
    assert "hold" not in lab.ledger.entry("starving")


def test_only_what_is_new_is_announced_and_only_by_who_has_the_name(lab: Lab) -> None:
    lab.join("node", "2")
    lab.new_events()
    assert lab.fleet.announce("node", "2", labels={"zone": "z"}, home="here") == "up"
    assert lab.fleet.announce("node", "1", labels={}, home="here") == "superseded"
    assert lab.fleet.announce("unknown", "1", labels={}, home="here") == "unknown"
    # Where its jobs live is nobody's business but its successor's.
    assert lab.fleet.announce("node", "2", labels={"zone": "z"}, home="there") == "up"
    assert lab.kinds() == []
    entry = lab.fleet.entry("node")
    assert (json.loads(entry["labels"]), entry["home"]) == ({"zone": "z"}, "there")


def test_a_restarted_node_adopts_what_it_held(lab: Lab) -> None:
    lab.join("node", gpus=1)
    running = lab.run("running", "node", gpu=1000)
    lab.place("placed", "node", cpu=500)
    lab.let_pass(11)
    lab.new_events()
    answer = lab.join("node", "2", gpus=1)
    assert set(answer.adopted) == {"running", "placed"}
    assert lab.kinds() == ["registered", "placed", "placed"]
    assert sorted(lab.doorbells("node")) == ["placed", "running"]
    assert lab.finish(running).status == "stale"
    claims = {claim.task_id: claim for claim in (lab.take("node", "2"), lab.take("node", "2"))}
    assert {task_id: claim.attempt for task_id, claim in claims.items()} == {"running": 2, "placed": 2}
    assert lab.ledger.entry("running")["losses"] == "1"
    assert "losses" not in lab.ledger.entry("placed")
    for claim in claims.values():
        lab.finish(claim)
    assert lab.free("node") == (*FULL[:4], "1000")


def test_a_node_that_restarts_smaller_keeps_what_runs_first_and_gives_up_what_does_not_fit(lab: Lab) -> None:
    lab.join("node", cpu=4000, gpus=2)
    for i in range(4):
        lab.place(f"placed{i}", "node", cpu=500)
    lab.place("running", "node", cpu=1500, gpu=1000)
    lab.ledger.claim("running", "node", "1")
    lab.let_pass(11)
    lab.new_events()
    adopted = lab.join("node", "2", cpu=2000, gpus=1).adopted
    assert adopted[0] == "running"
    assert len(adopted) == 2
    assert lab.free("node") == (0, 8192 - 2 * 1024, 1000, 6, "0")
    assert lab.ledger.totals()["waiting"] == 3
    assert sorted(lab.kinds()) == ["placed", "placed", "registered", "waiting", "waiting", "waiting"]
    assert len(lab.doorbells("node")) == 2


def test_a_restart_promotes_a_published_retry_and_ends_what_was_cancelled(lab: Lab) -> None:
    lab.join("node")
    lab.run("retried", "node")
    lab.place("retried", retries=1, from_attempt=1)
    lab.run("cancelled", "node")
    lab.ledger.cancel("cancelled")
    lab.let_pass(11)
    assert lab.join("node", "2").adopted == ()
    assert lab.state("retried") == "waiting"
    assert lab.ledger.message("retried") == b'{"id":"retried","nonce":"n2"}'
    assert lab.state("cancelled") == "cancelled"
    assert lab.free("node") == FULL
    lab.settle_all()


def test_a_task_that_kills_its_node_each_time_is_lost_for_good(lab: Lab) -> None:
    lab.join("node", "0")
    lab.place("t", "node")
    for i in range(MAX_ATTEMPTS):
        lab.take("node", str(i))
        lab.let_pass(11)
        lab.join("node", str(i + 1))
    entry = lab.ledger.entry("t")
    assert entry["state"] == "lost"
    assert "limits.max_attempts" in entry["reason"]
    assert lab.doorbells("node") == []
    assert lab.free("node") == FULL
    assert lab.ledger.totals()["finished_lost"] == 1
    assert lab.ledger.totals()["attempts_lost"] == MAX_ATTEMPTS
    lab.settle_all()


def test_a_restarted_node_attaches_to_the_jobs_that_it_finds(lab: Lab) -> None:
    lab.join("node", gpus=3)
    first = lab.run("first", "node", gpu=1000)
    found = lab.run("found", "node", gpu=2000)
    lab.run("gone", "node", gpu=0)
    lab.finish(first)
    lab.let_pass(11)
    lab.new_events()
    answer = lab.join("node", "2", gpus=3, jobs=[("found", 1), ("gone", 7), ("unknown", 1)])
    assert set(answer.adopted) == {"found", "gone"}
    assert answer.adopting == ("found",)
    assert lab.finish(found).status == "stale"
    claims = {claim.task_id: claim for claim in (lab.take("node", "2"), lab.take("node", "2"))}
    again = claims["found"]
    # The very devices that the job has, although the first one is free now.
    assert (again.attempt, again.adopts, again.devices) == (2, 1, (1, 2))
    assert (claims["gone"].attempt, claims["gone"].adopts) == (2, 0)
    assert "losses" not in lab.ledger.entry("found")
    assert lab.ledger.entry("gone")["losses"] == "1"
    assert lab.ledger.totals()["attempts_adopted"] == 1
    placed = [e.fields.get("adopts") for e in lab.new_events() if e.kind == "placed" and e.task_id == "found"]
    assert placed == ["1"]
    assert lab.ledger.unclaim("found", 2)
    assert lab.place_waiting("found", "node") == "node"
    last = lab.take("node", "2")
    assert (last.attempt, last.adopts) == (3, 0)  # it was said of attempt 2 alone
    for claim in (last, claims["gone"]):
        assert lab.finish(claim).status == "finished"
    assert lab.free("node") == (*FULL[:4], "1000,1000,1000")


def test_a_node_that_dies_before_it_has_attached_attaches_the_next_time(lab: Lab) -> None:
    lab.join("node")
    lab.run("claimed", "node")
    lab.run("placed", "node")
    jobs = [("claimed", 1), ("placed", 1)]
    lab.let_pass(11)
    assert set(lab.join("node", "2", jobs=jobs).adopting) == {"claimed", "placed"}
    assert lab.ledger.claim("claimed", "node", "2") is not None
    lab.let_pass(11)
    assert set(lab.join("node", "3", jobs=jobs).adopting) == {"claimed", "placed"}
    again = [lab.take("node", "3"), lab.take("node", "3")]
    assert [(claim.attempt, claim.adopts) for claim in again] == [(3, 1), (3, 1)]
    assert lab.free("node") == (2000, 8192 - 2 * 1024, 1000, 6, "")
    for claim in again:
        lab.finish(claim)


def test_a_job_of_a_task_that_was_cancelled_or_retried_is_not_attached_to(lab: Lab) -> None:
    lab.join("node")
    lab.run("retried", "node")
    lab.place("retried", retries=1, from_attempt=1)
    lab.run("cancelled", "node")
    lab.ledger.cancel("cancelled")
    lab.run("big", "node", cpu=2000)
    lab.let_pass(11)
    jobs = [("retried", 1), ("cancelled", 1), ("big", 1)]
    assert lab.join("node", "2", cpu=1000, jobs=jobs).adopting == ()
    assert {lab.state(t) for t in ("retried", "big")} == {"waiting"}
    assert lab.state("cancelled") == "cancelled"
    lab.settle_all()


def test_what_may_still_run_on_another_machine_is_not_placed_anew_before_its_lease_is_over(lab: Lab) -> None:
    lab.join("node", home="there")
    claim = lab.run("t", "node")
    lab.let_pass(100)
    answer = lab.join("node", "2", home="here")
    assert (answer.accepted, answer.reason) == (False, ELSEWHERE)
    assert lab.ledger.is_current("t", claim.attempt)
    assert lab.join("node", "3", home="there").adopted == ("t",)
    lab.take("node", "3")
    lab.let_pass(131)
    assert lab.join("node", "4", home="here").adopted == ("t",)
    lab.finish(lab.take("node", "4"))
    lab.let_pass(11)
    assert lab.join("node", "5", home="there").accepted  # nothing ran here


# --- heartbeat


def test_a_heartbeat_of_a_node_that_nobody_knows_says_so(lab: Lab) -> None:
    assert lab.beat("node") == "unknown"


def test_telemetry_that_says_nothing_new_is_not_published(lab: Lab) -> None:
    lab.join("node")

    def version_after(pressure: float) -> int:
        beat = lab.fleet.heartbeat("node", "1", pressure=pressure, usage={"cpu_use": 0.5}, publish_after_s=60.0)
        assert (beat.status, beat.state) == ("ok", "up")
        return int(read_changes(lab.fleet.refresh(0, 10, 0).changes)[0][1])

    first = version_after(0.50)
    assert version_after(0.51) == first
    changed = version_after(0.60)
    assert changed > first
    unmeasured = version_after(math.nan)
    assert unmeasured > changed
    assert version_after(math.nan) == unmeasured
    lab.let_pass(4)
    assert version_after(math.nan) > unmeasured
    assert json.loads(lab.fleet.entry("node")["usage"]) == {"cpu_use": 0.5}


# --- drain, sign-off


def test_draining_moves_what_is_not_claimed_and_keeps_what_runs(lab: Lab) -> None:
    lab.join("node")
    running = lab.run("running", "node")
    lab.place("placed", "node")
    lab.new_events()
    assert lab.fleet.drain("node") == "draining"
    assert lab.fleet.drain("node") == "draining"
    assert lab.kinds() == ["draining", "waiting"]
    assert lab.doorbells("node") == []
    assert lab.place("t", "node").status == "waiting"
    assert lab.finish(running).status == "finished"
    assert lab.fleet.undrain("node") == "up"
    assert lab.fleet.undrain("node") == "up"
    assert lab.kinds() == ["submitted", "waiting", "finished", "up"]
    assert lab.place_waiting("placed", "node") == "node"
    assert lab.fleet.drain("unknown") == "unknown"


def test_a_draining_node_that_was_silent_is_still_draining(lab: Lab) -> None:
    lab.join("node")
    lab.join("other")
    lab.fleet.drain("node")
    lab.sweep_through(40, "other")
    assert lab.fleet.entry("node")["state"] == "stale"
    assert lab.beat("node") == "returned"
    assert lab.fleet.entry("node")["state"] == "draining"


def test_a_wish_to_drain_a_silent_node_is_kept(lab: Lab) -> None:
    lab.join("node")
    lab.join("other")
    lab.sweep_through(40, "other")
    assert lab.fleet.drain("node") == "stale"
    lab.beat("node")
    assert lab.place("t", "node").status == "waiting"
    assert lab.fleet.undrain("node") == "up"


def test_what_a_node_could_not_report_when_it_left_is_freed_by_the_lease(lab: Lab) -> None:
    lab.join("node")
    lab.join("other")
    lab.run("t", "node")
    assert lab.fleet.sign_off("node", "1") == "down"
    lab.sweep_through(100, "other")
    assert lab.state("t") == "running"
    lab.sweep_through(60, "other")
    assert lab.state("t") == "waiting"
    assert lab.place_waiting("t", "other") == "other"
    assert lab.take("other").attempt == 2


def test_nodes_that_left_or_were_lost_are_forgotten_after_a_day(lab: Lab) -> None:
    lab.join("left")
    lab.join("lost")
    lab.join("stays")
    lab.fleet.sign_off("left", "1")
    lab.sweep_through(170, "stays")
    assert lab.fleet.names() == ["left", "lost", "stays"]
    lab.let_pass(86_400)
    lab.beat("stays")
    lab.sweep.run()
    assert lab.fleet.names() == ["stays"]
    left = [key for key in lab.client.scan_iter() if b"left" in key or b"lost" in key]
    assert left == []
    assert lab.beat("lost") == "unknown"


def test_whole_messages_left_to_a_lost_node_are_placed_elsewhere(lab: Lab) -> None:
    lab.join("node")
    lab.join("other")
    lab.sweep_through(25, "node", "other")
    lab.client.lpush(node_queue("node"), b'{"body": 1}', b"an id", b'{"body": 2}')
    lab.sweep_through(100, "other")
    assert lab.client.llen(PLACE_QUEUE) == 0
    lab.sweep_through(50, "other")
    assert lab.client.lrange(PLACE_QUEUE, 0, -1) == [b'{"body": 2}', b'{"body": 1}']
    assert lab.client.exists(node_queue("node")) == 0
    assert lab.ledger.totals()["messages_rescued"] == 2


def test_a_reservation_that_leaked_is_found_and_put_right(lab: Lab) -> None:
    lab.join("node", gpus=2)
    claims = [lab.run("t1", "node", cpu=500, gpu=1000, storage=3), lab.run("t2", "node", gpu=250)]
    lab.place("t3", "node", memory=7)
    assert lab.fleet.audit("node") == ""
    before = lab.free("node")
    lab.client.hincrby(lab.keys.node("node"), "cpu", -300)
    lab.client.hset(lab.keys.node("node"), "gpu", "0,0")
    lab.client.sadd(lab.keys.node_tasks("node"), "nobody's")
    assert "cpu" in lab.fleet.audit("node")
    assert lab.free("node") == before
    assert lab.fleet.audit("node") == ""
    assert lab.ledger.totals()["reservation_leaks"] == 1
    for claim in (*claims, lab.take("node")):
        lab.finish(claim)
    assert lab.free("node") == (*FULL[:4], "1000,1000")
    assert lab.fleet.audit("node") == lab.fleet.audit("unknown") == ""


# --- silence and loss


def test_a_silent_node_loses_what_it_has_not_claimed_and_a_lost_one_what_runs(lab: Lab) -> None:
    lab.join("node")
    lab.join("other")
    running = lab.run("running", "node")
    lab.place("placed", "node")
    lab.sweep_through(25, "node", "other")  # past the grace after the first sweep
    lab.new_events()

    lab.sweep_through(15, "other")
    assert lab.fleet.entry("node")["state"] == "stale"
    assert (lab.state("placed"), lab.state("running")) == ("waiting", "running")
    assert lab.doorbells("node") == []
    assert lab.kinds() == ["stale", "waiting"]

    lab.sweep_through(110, "other")
    assert lab.state("running") == "running"
    log = [line for swept in lab.sweep_through(15, "other") for line in swept.log]
    assert lab.fleet.entry("node")["state"] == "lost"
    assert lab.state("running") == "waiting"
    assert lab.kinds() == ["lost", "waiting"]
    assert len(log) == 1
    assert "node is lost" in log[0]
    assert lab.free("node") == FULL

    assert lab.place_waiting("running", "other") == "other"
    assert lab.beat("node") == "returned"
    assert not lab.ledger.is_current("running", running.attempt)
    assert lab.finish(running).status == "stale"
    assert lab.finish(lab.take("other")).status == "finished"
    assert lab.place("t", "node", cpu=1).status == "placed"


def test_a_node_within_its_lease_that_returns_keeps_what_runs(lab: Lab) -> None:
    lab.join("node")
    lab.join("other")
    running = lab.run("t", "node")
    lab.sweep_through(100, "other")
    assert lab.beat("node") == "returned"
    assert lab.ledger.is_current("t", running.attempt)
    assert lab.finish(running).status == "finished"


def test_a_lost_node_promotes_a_retry_ends_the_cancelled_and_gives_up_after_max_attempts(lab: Lab) -> None:
    lab.join("other")
    for i in range(MAX_ATTEMPTS):
        name = f"node{i}"
        lab.join(name)
        if i == 0:
            lab.run("cancelled", name)
            lab.ledger.cancel("cancelled")
            lab.run("retried", name)
            lab.place("retried", retries=1, from_attempt=1)
            lab.place("poison", name)
        else:
            assert lab.place_waiting("poison", name) == name
        lab.take(name)
        lab.sweep_through(170, "other")
    assert lab.state("cancelled") == "cancelled"
    assert lab.state("retried") == "waiting"
    assert lab.state("poison") == "lost"
    assert lab.unsettled() == {"cancelled", "poison"}
    assert set(lab.sweep_through(5, "other")[0].unsettled) == {"cancelled", "poison"}
    lab.settle_all()


def test_after_an_outage_every_node_has_time_to_speak(lab: Lab) -> None:
    lab.join("node")
    lab.join("other")
    claim = lab.run("t", "node")
    lab.sweep_through(25, "node", "other")
    lab.let_pass(1000)
    assert lab.sweep.run().log == ()
    lab.sweep_through(15)
    assert lab.beat("node") == "ok"
    lab.sweep_through(30, "node")
    assert lab.ledger.is_current("t", claim.attempt)
    assert lab.fleet.entry("node")["state"] == "up"
    assert lab.fleet.entry("other")["state"] == "lost"


def test_one_sweep_at_a_time(lab: Lab) -> None:
    assert lab.sweep.run().done
    assert not all(lab.sweep.run().done for _ in range(5))
    lab.let_pass(1)
    assert lab.sweep.run().done


def test_many_silent_nodes_do_not_hide_one_that_falls_silent_later(lab: Lab) -> None:
    """The sweep works in batches of 200, oldest silence first."""
    for i in range(250):
        lab.join(f"gone{i}")
    lab.sweep_through(40)
    lab.join("late")
    lab.place("t", "late")
    lab.sweep_through(20)
    assert lab.fleet.entry("late")["state"] == "stale"
    assert lab.state("t") == "waiting"


@pytest.mark.parametrize("where", ["waiting", "placed", "running"])
def test_an_expiry_ends_what_has_not_started(lab: Lab, where: str) -> None:
    lab.join("node")
    lab.place("t", *([] if where == "waiting" else ["node"]), expires=lab.at(30))
    if where == "running":
        lab.take("node")
    lab.new_events()
    lab.sweep_through(40, "node")
    if where == "running":
        assert lab.kinds() == []
        assert lab.state("t") == "running"
        return
    (event,) = lab.new_events()
    assert (event.kind, event.fields["outcome"]) == ("finished", "expired")
    assert lab.doorbells("node") == []
    assert lab.free("node") == FULL
    assert lab.unsettled() == {"t"}
    assert lab.ledger.totals()["live"] == 0
    lab.settle_all()


def test_unsettled_results_are_listed_until_somebody_stored_them(lab: Lab) -> None:
    lab.place("t")
    lab.ledger.cancel("t")
    assert lab.sweep.run().unsettled == ()  # its canceller is about to do it
    lab.let_pass(1)
    assert lab.sweep.run().unsettled == ("t",)
    lab.let_pass(1)
    assert lab.sweep.run().unsettled == ("t",)
    lab.settle_all()
    lab.let_pass(1)
    assert lab.sweep.run().unsettled == ()


def test_the_waiting_are_counted_for_whoever_beats_or_sweeps(lab: Lab) -> None:
    lab.join("node")
    lab.place("t1", cpu=5000)
    lab.place("t2", eta=lab.at(100))
    beat = lab.fleet.heartbeat("node", "1", pressure=0.0, usage={}, publish_after_s=60.0)
    assert beat.waiting == 1
    assert lab.sweep.run().waiting == 1
    assert [task_id for task_id, _ in lab.ledger.waiting_ids(10)] == ["t1", "t2"]


def test_a_node_that_is_gone_has_no_queue_of_its_own_left(lab: Lab) -> None:
    lab.join("node")
    lab.place("t", "node")
    lab.fleet.sign_off("node", "1")
    assert lab.state("t") == "waiting"
    assert lab.client.exists(node_queue("node")) == 0
