"""Attempts: claim, finish, unclaim, cancel, retry, and what tau learns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.parameters import GAParams

if TYPE_CHECKING:
    from .conftest import Lab

FULL = (4000, 8192, 1000, 8, "")


def test_a_claim_hands_over_the_message_and_what_is_reserved(lab: Lab) -> None:
    lab.join("node", gpus=2)
    lab.place("t", "node", cpu=500, memory=256, gpu=2000, storage=7, deadline=lab.at(60))
    lab.new_events()
    claim = lab.take("node")
    assert claim.message == b'{"id":"t","nonce":"n1"}'
    assert (claim.attempt, claim.devices) == (1, (0, 1))
    assert (claim.cpu_milli, claim.memory_kib, claim.gpu_milli, claim.storage_kib) == (500, 256, 2000, 7)
    assert claim.deadline == pytest.approx(lab.at(60), abs=600)
    assert claim.waiting_s >= 0
    assert lab.kinds() == ["claimed"]
    assert lab.ledger.is_current("t", 1)
    assert not lab.ledger.is_current("t", 2)


def test_a_task_is_claimed_once_and_only_by_the_incarnation_that_it_is_placed_on(lab: Lab) -> None:
    lab.join("node")
    lab.join("other")
    lab.place("t", "node")
    lab.new_events()
    assert lab.ledger.claim("t", "other", "1") is None
    assert lab.ledger.claim("t", "node", "old") is None
    assert lab.ledger.claim("unknown", "node", "1") is None
    assert lab.ledger.claim("t", "node", "1") is not None
    assert lab.ledger.claim("t", "node", "1") is None
    assert lab.kinds() == ["claimed"]
    assert lab.ledger.totals()["claims_refused"] == 4


def test_a_silent_node_claims_nothing_until_it_is_heard(lab: Lab) -> None:
    lab.join("node")
    lab.place("t", "node")
    lab.let_pass(11)
    assert lab.doorbell("node") == "t"
    assert lab.ledger.claim("t", "node", "1") is None
    lab.beat("node")
    assert lab.fleet.ring("node", 100.0) == ["t"]
    assert lab.take("node").task_id == "t"


def test_a_lost_doorbell_rings_again_once(lab: Lab) -> None:
    lab.join("node")
    lab.place("t", "node")
    lab.place("heard", "node")
    assert lab.doorbell("node") == "t"
    assert lab.fleet.ring("node", 100.0) == []
    lab.let_pass(6)
    lab.beat("node")
    assert lab.fleet.ring("node", 100.0) == ["t"]
    assert lab.fleet.ring("node", 100.0) == []
    assert sorted(lab.doorbells("node")) == ["heard", "t"]


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "timed_out", "cancelled", "expired"])
def test_finish_ends_the_task_and_leaves_only_what_expires(lab: Lab, outcome: str) -> None:
    lab.join("node", gpus=1)
    claim = lab.run("t", "node", gpu=500, decision="{}")
    lab.new_events()
    result = lab.ledger.finish(
        "t", 1, outcome, runtime_s=2.0, reason="because", usage={"peak_memory": 7}
    )
    assert (result.status, result.waiting, result.task_type) == ("finished", 0, "cpu-light")
    (event,) = lab.new_events()
    assert (event.kind, event.fields["outcome"], event.fields["final"]) == ("finished", outcome, "1")
    assert event.fields["peak_memory"] == "7"
    assert event.fields["features"] == "features of node"
    assert event.fields["sla_success"] == ("1" if outcome == "succeeded" else "0")
    assert lab.free("node") == (*FULL[:4], "1000")
    entry = lab.ledger.entry("t")
    assert (entry["state"], entry["reason"]) == (outcome, "because")
    assert lab.ledger.message("t") is None
    assert lab.client.ttl(lab.keys.task("t")) > 0
    assert lab.client.ttl(lab.keys.decision("t")) > 0
    assert lab.ledger.totals()["finished_" + outcome] == 1
    assert lab.ledger.totals()["live"] == 0
    assert not lab.ledger.is_current("t", claim.attempt)


def test_a_finish_counts_once_whoever_reports_however_often(lab: Lab) -> None:
    lab.join("node")
    claim = lab.run("t", "node")
    lab.new_events()
    assert lab.finish(claim).status == "finished"
    tau = lab.tau.read()
    for outcome in ("succeeded", "failed", "retried", "requeued", "cancelled"):
        assert lab.finish(claim, outcome, 100.0).status == "stale"
    assert lab.tau.read() == tau
    assert lab.free("node") == FULL
    assert lab.kinds() == ["finished"]
    assert lab.state("t") == "succeeded"
    assert lab.ledger.totals()["finishes_refused"] == 5


def test_a_success_after_its_deadline_is_no_sla_success(lab: Lab) -> None:
    lab.join("node")
    claim = lab.run("t", "node", deadline=lab.at(5))
    lab.let_pass(6)
    lab.finish(claim)
    assert lab.ledger.entry("t")["sla_success"] == "0"


# --- tau


def test_tau_learns_once_from_a_success(lab: Lab) -> None:
    lab.join("node")
    result = lab.finish(lab.run("t", "node"), runtime_s=10.0)
    assert (result.tau_old, result.tau_new) == (5.0, 6.0)
    assert lab.tau.read()["cpu-light"] == 6.0
    assert lab.tau.samples()["cpu-light"] == 1
    known = lab.fleet.refresh(0, 10, 0)
    assert {kind: learned.tau for kind, learned in known.types.items()} == {"cpu-light": 6.0}


@pytest.mark.parametrize("outcome", ["failed", "cancelled", "timed_out", "expired"])
def test_tau_learns_from_nothing_else(lab: Lab, outcome: str) -> None:
    lab.join("node")
    assert lab.finish(lab.run("t", "node"), outcome, 10.0).tau_new is None
    assert lab.tau.read()["cpu-light"] == 5.0


@pytest.mark.parametrize("runtime", [math.nan, math.inf, -math.inf, 0.0, -1.0, -3.5])
def test_a_sample_that_is_not_finite_and_positive_is_refused_and_counted(lab: Lab, runtime: float) -> None:
    lab.join("node")
    result = lab.finish(lab.run("t", "node"), runtime_s=runtime)
    assert (result.status, result.tau_new) == ("finished", None)
    assert lab.tau.samples()["cpu-light"] == 0
    assert lab.ledger.totals()["tau_samples_refused"] == 1


def test_no_sample_is_no_refusal(lab: Lab) -> None:
    lab.join("node")
    assert lab.finish(lab.run("t", "node"), runtime_s=None).tau_new is None
    assert "tau_samples_refused" not in lab.ledger.totals()


@pytest.mark.parametrize(("start", "runtime", "expected"), [(1e6, 1e9, 1e6), (0.001, 1e-12, 0.001)])
def test_tau_is_clamped(lab: Lab, start: float, runtime: float, expected: float) -> None:
    lab.join("node")
    lab.tau.set("cpu-light", start)
    assert lab.finish(lab.run("t", "node"), runtime_s=runtime).tau_new == expected


def test_tau_set_by_hand_is_read_back_and_tells(lab: Lab) -> None:
    assert lab.tau.set("gpu-training", 90.5) == 60.0
    assert lab.tau.set("gpu-training", 91.0) == 90.5
    assert lab.tau.read()["gpu-training"] == 91.0
    assert [(e.kind, e.fields["tau_new"]) for e in lab.new_events()] == [("tau", "90.5"), ("tau", "91.0")]
    with pytest.raises(InvalidRequest, match="tau"):
        lab.tau.set("gpu-training", math.nan)
    with pytest.raises(InvalidRequest, match="cpu-light"):
        lab.tau.set("gpu", 1.0)


# --- giving back, retries


def test_an_unclaimed_task_waits_again_and_its_next_placement_is_the_next_attempt(lab: Lab) -> None:
    lab.join("node")
    claim = lab.run("t", "node")
    lab.new_events()
    assert lab.ledger.unclaim("t", claim.attempt)
    assert not lab.ledger.unclaim("t", claim.attempt)
    assert lab.free("node") == FULL
    assert lab.place_waiting("t", "node") == "node"
    assert lab.take("node").attempt == 2
    assert lab.kinds() == ["waiting", "placed", "claimed"]
    assert lab.finish(claim).status == "stale"
    assert not lab.ledger.unclaim("t", 1)


def test_a_requeued_task_waits_again(lab: Lab) -> None:
    lab.join("node")
    claim = lab.run("t", "node")
    lab.new_events()
    assert lab.finish(claim, "requeued", None).status == "waiting"
    assert [(e.kind, e.fields.get("final")) for e in lab.new_events()] == [
        ("finished", "0"),
        ("waiting", None),
    ]
    assert lab.place_waiting("t", "node") == "node"


def test_an_expiry_holds_again_for_a_task_that_was_given_back(lab: Lab) -> None:
    lab.join("node")
    claim = lab.run("t", "node", expires=lab.at(100))
    lab.sweep_through(50, "node")
    lab.ledger.unclaim("t", claim.attempt)
    lab.sweep_through(60, "node")
    assert lab.state("t") == "expired"
    lab.settle_all()


def test_a_retry_published_while_the_body_runs_waits_when_it_ends(lab: Lab) -> None:
    lab.join("node")
    claim = lab.run("t", "node", deadline=lab.at(60))
    deadline = lab.ledger.entry("t")["deadline"]
    lab.new_events()
    retry = lab.submission("t", retries=1, from_attempt=1)
    assert lab.ledger.place(retry, [("node", "")], 0).status == "next"
    assert lab.ledger.place(retry, [("node", "")], 0).status == "duplicate"
    assert lab.state("t") == "running"
    assert lab.finish(claim, "retried", None).status == "next"
    assert lab.place_waiting("t", "node") == "node"
    again = lab.take("node")
    assert (again.attempt, again.message) == (2, b'{"id":"t","nonce":"n2"}')
    assert lab.ledger.entry("t")["deadline"] == deadline
    assert lab.kinds() == ["finished", "waiting", "placed", "claimed"]
    assert lab.finish(again).status == "finished"
    assert lab.ledger.totals()["live"] == 0


def test_a_retry_with_a_countdown_waits_for_it(lab: Lab) -> None:
    lab.join("node")
    claim = lab.run("t", "node")
    lab.place("t", retries=1, eta=lab.at(30), expires=lab.at(40), from_attempt=1)
    lab.finish(claim, "retried", None)
    assert lab.ledger.totals()["delayed"] == 1
    lab.sweep_through(35, "node")
    assert lab.place_waiting("t", "node") == "node"
    lab.sweep_through(10, "node")
    assert lab.state("t") == "expired"
    lab.settle_all()


def test_a_replacement_may_ask_for_something_else(lab: Lab) -> None:
    lab.join("node", gpus=1)
    claim = lab.run("t", "node", cpu=100)
    lab.place("t", cpu=2000, gpu=1000, task_type="gpu-inference", from_attempt=1)
    assert lab.finish(claim, "succeeded", 1.0).status == "next"
    assert lab.tau.samples()["cpu-light"] == 0
    assert lab.place_waiting("t", "node") == "node"
    again = lab.take("node")
    assert (again.cpu_milli, again.devices) == (2000, (0,))
    assert lab.finish(again, runtime_s=10.0).task_type == "gpu-inference"


def test_a_retry_that_was_never_published_ends_the_task_unsettled(lab: Lab) -> None:
    lab.join("node")
    claim = lab.run("t", "node")
    lab.new_events()
    assert lab.finish(claim, "retried", None).status == "unsettled"
    (event,) = lab.new_events()
    assert (event.kind, event.fields["outcome"], event.fields["final"]) == ("finished", "failed", "1")
    assert lab.unsettled() == {"t"}
    lab.settle_all()


def test_a_superseded_attempt_cannot_publish_a_retry(lab: Lab) -> None:
    lab.join("node")
    old = lab.run("t", "node")
    lab.ledger.unclaim("t", old.attempt)
    assert lab.place("t", from_attempt=old.attempt, retries=1).status == "stale"
    lab.place_waiting("t", "node")
    assert lab.place("t", from_attempt=old.attempt, retries=1).status == "stale"
    new = lab.take("node")
    assert lab.place("t", from_attempt=old.attempt, retries=1).status == "stale"
    assert lab.finish(new).status == "finished"
    assert lab.place("t", from_attempt=old.attempt, retries=1).status == "stale"
    assert lab.place("forgotten", from_attempt=1).status == "stale"
    assert lab.ledger.totals()["live"] == 0


def test_a_paused_job_goes_on_only_where_it_still_runs(lab: Lab) -> None:
    lab.join("node")
    claim = lab.run("t", "node")
    lab.new_events()
    assert lab.ledger.resume("t", 1, "node", 3.5)
    assert lab.ledger.resume("t", 1, "node", 1.0)
    assert [(e.kind, e.fields["node"], e.fields.get("paused")) for e in lab.new_events()] == [
        ("paused", "node", None), ("resumed", "node", "3.500000"),
        ("paused", "node", None), ("resumed", "node", "1.000000"),
    ]  # fmt: skip
    assert float(lab.ledger.entry("t")["paused"]) == 4.5
    assert not lab.ledger.resume("t", 2, "node", 1.0)
    assert not lab.ledger.resume("t", 1, "other", 1.0)
    assert not lab.ledger.resume("unknown", 1, "node", 1.0)
    lab.finish(claim)
    assert not lab.ledger.resume("t", 1, "node", 1.0)
    assert lab.kinds() == ["finished"]


# --- cancelling


@pytest.mark.parametrize("where", ["waiting", "delayed", "placed"])
def test_cancelling_a_task_that_has_not_started_ends_it_at_once(lab: Lab, where: str) -> None:
    lab.join("node")
    nodes = ("node",) if where == "placed" else ()
    lab.place("t", *nodes, eta=lab.at(50) if where == "delayed" else 0.0, expires=lab.at(500))
    lab.new_events()
    assert lab.ledger.cancel("t", "not needed") == ("cancelled", "node" if where == "placed" else "")
    assert lab.ledger.cancel("t") == ("cancelled", "node" if where == "placed" else "")
    (event,) = lab.new_events()
    assert (event.kind, event.fields["outcome"], event.fields["reason"]) == (
        "finished",
        "cancelled",
        "not needed",
    )
    assert lab.free("node") == FULL
    assert lab.doorbells("node") == []
    assert lab.ledger.claim("t", "node", "1") is None
    assert lab.ledger.message("t") is not None
    assert lab.ledger.settled("t")
    assert not lab.ledger.settled("t")
    assert lab.ledger.message("t") is None
    assert lab.client.ttl(lab.keys.task("t")) > 0
    assert lab.place("t").status == "revoked"
    assert lab.ledger.totals()["finished_cancelled"] == 1


def test_a_cancelled_running_task_is_marked_and_ends_with_its_attempt(lab: Lab) -> None:
    lab.join("node")
    claim = lab.run("t", "node")
    lab.new_events()
    assert lab.ledger.cancel("t") == ("running", "node")
    assert lab.kinds() == []
    assert lab.finish(claim, "cancelled", None).status == "finished"
    assert lab.state("t") == "cancelled"


def test_a_cancelled_task_never_runs_again(lab: Lab) -> None:
    lab.join("node")

    def cancelled(task_id: str) -> Any:
        claim = lab.run(task_id, "node")
        lab.place(task_id, retries=1, from_attempt=claim.attempt)
        lab.ledger.cancel(task_id)
        assert lab.place(task_id, retries=1, from_attempt=claim.attempt).status == "revoked"
        return claim

    assert lab.finish(cancelled("retried"), "retried", None).status == "unsettled"
    assert lab.finish(cancelled("requeued"), "requeued", None).status == "unsettled"
    assert lab.finish(cancelled("replaced"), "succeeded", None).status == "unsettled"
    assert lab.ledger.unclaim("unclaimed", cancelled("unclaimed").attempt)
    assert {lab.state(t) for t in ("retried", "requeued", "replaced", "unclaimed")} == {"cancelled"}
    assert lab.unsettled() == {"retried", "requeued", "replaced", "unclaimed"}
    assert lab.ledger.totals()["finished_cancelled"] == 4
    assert lab.ledger.totals()["live"] == 0
    assert lab.free("node") == FULL
    lab.settle_all()


def test_cancelling_what_is_unknown_or_over_changes_nothing(lab: Lab) -> None:
    lab.join("node")
    lab.finish(lab.run("t", "node"))
    before = lab.ledger.entry("t")
    lab.new_events()
    assert lab.ledger.cancel("t") == ("succeeded", "node")
    assert lab.ledger.cancel("unknown") == ("unknown", "")
    assert lab.kinds() == []
    assert lab.ledger.entry("t") == before
    assert lab.ledger.entry("unknown") == {}


# --- exactness, parameters


def test_numbers_are_exact_after_thousands_of_operations(lab: Lab) -> None:
    """Amounts that would drift as floats; 10^12 KiB is the largest that a request may ask for."""
    lab.join("node", cpu=10**9, memory=10**12, gpus=2, storage=10**12, slots=10_000)
    needs = [
        (333, 10**9 + 7, 333, 10**10 + 1),
        (1, 1, 2000, 0),
        (700, 3, 1, 5),
        (999_999, 10**11, 0, 10**11 + 3),
    ]
    for i in range(1500):
        if i % 100 == 0:
            lab.beat("node")
        cpu, memory, gpu, storage = needs[i % 4]
        claim = lab.run(f"t{i}", "node", cpu=cpu, memory=memory, gpu=gpu, storage=storage)
        if i % 7 == 0:
            lab.ledger.unclaim(claim.task_id, claim.attempt)
            lab.ledger.cancel(claim.task_id)
        else:
            lab.finish(claim)
        lab.client.delete(lab.keys.unsettled)
    assert lab.free("node") == (10**9, 10**12, 10**12, 10_000, "1000,1000")
    assert lab.ledger.totals()["live"] == 0
    lab.client.flushdb()  # the unsettled ones were put aside above


def test_parameters_are_versioned_and_a_late_writer_is_told(lab: Lab) -> None:
    assert lab.parameters.read() is None
    assert lab.fleet.refresh(0, 10, 0).parameters_version == 0
    assert lab.parameters.publish(GAParams(), "first") == 1
    assert lab.parameters.publish(GAParams(alpha=5.0), "epoch", only_over=1) == 2
    assert lab.parameters.publish(GAParams(alpha=7.0), "late", only_over=1) is None
    published = lab.parameters.read()
    assert published is not None
    assert (published.parameters.alpha, published.parameters.version, published.source) == (5.0, 2, "epoch")
    assert published.published == pytest.approx(lab.now(), abs=60)
    assert [e.kind for e in lab.new_events()] == ["parameters", "parameters"]
    news = lab.fleet.refresh(0, 10, 1)
    assert news.parameters_version == 2
    assert GAParams.from_json(news.parameters).alpha == 5.0
    assert lab.fleet.refresh(0, 10, 2).parameters == ""
