"""An epoch against a real Redis: what it publishes, what it keeps, and what it says of both."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from cloudai.deployment import Deployment
from cloudai.embedded import EmbeddedMongo
from cloudai.history.collections import RESULTS
from cloudai.history.errors import HistoryReadOnly, HistoryUnavailable
from cloudai.history.records import Reading, TaskHistory, WorkerStats
from cloudai.history.store import HistoryStore
from cloudai.scheduling.learning import LearningRule
from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.requests import RequestDefaults, parse_request
from cloudai.settings import Settings
from cloudai_beat.epoch import run_epoch
from cloudai_beat.searching import SearchInputs, SearchOutcome
from cloudai_beat.synthetic import Truth, synthetic_history

SPEEDS = {"fast": 0.5, "usual": 1.0, "slow": 2.0}


class KnownHistory:
    """A history that holds these records, whenever one asks."""

    def __init__(self, records: Sequence[TaskHistory] = (), workers: Sequence[WorkerStats] = ()) -> None:
        self.records = tuple(records)
        self.workers = tuple(workers)
        self.epochs: list[Mapping[str, Any]] = []
        self.away: Exception | None = None
        self.read_only: Exception | None = None

    def task_history(self, since: float, until: float, limit: int) -> Reading[TaskHistory]:
        assert since < until
        if self.away is not None:
            raise self.away
        return Reading(self.records[:limit], {"alien": 2}, capped=len(self.records) > limit)

    def worker_stats(self, since: float, until: float) -> Reading[WorkerStats]:
        return Reading(self.workers)

    def append_epoch(self, document: Mapping[str, Any]) -> str:
        problem = self.away or self.read_only
        if problem is not None:
            raise problem
        self.epochs.append(document)
        return str(document["_id"])


@pytest.fixture
def deployment(redis_url: str) -> Iterator[Deployment]:
    made = Deployment(Settings.load(redis={"url": redis_url}, scheduling={"params_reload_interval_s": 0.001}))
    yield made
    made.client.close()


@pytest.fixture(scope="module")
def some() -> tuple[list[TaskHistory], list[WorkerStats]]:
    return synthetic_history(Truth(speeds=SPEEDS, noise=0.1), 1500, seed=1)


@pytest.fixture
def history(some: tuple[list[TaskHistory], list[WorkerStats]]) -> KnownHistory:
    return KnownHistory(*some)


def in_force(deployment: Deployment) -> GAParams:
    published = deployment.parameters.read()
    return GAParams() if published is None else published.parameters


# --- what it does


def test_an_epoch_publishes_what_it_learned_and_says_so(deployment, history):
    report = run_epoch(deployment, history)
    assert (report.outcome, report.version, report.in_force) == ("published", 1, 0)
    p = in_force(deployment)
    assert p.speed["mixed"]["slow"] > 1.5 > p.speed["mixed"]["fast"]
    assert len(p.affinity) == 6
    assert deployment.parameters.read().source == "epoch"
    assert report.records == 1500
    assert sum(report.samples.values()) == 1500
    assert report.skipped["alien"] == 2
    assert report.changes
    assert report.theta == (p.theta1, p.theta2, p.theta3, p.theta4)
    # Kept in the history, and in Redis for those who look while it is away.
    assert history.epochs[0]["_id"] == report.epoch_id
    assert deployment.epochs.latest() == [json.loads(json.dumps(report.to_json()))]
    counters = deployment.client.hgetall(deployment.keys.counters)
    assert (counters[b"epochs"], counters[b"epochs:published"]) == (b"1", b"1")


def test_the_same_history_again_changes_nothing(deployment, history):
    run_epoch(deployment, history)
    again = [run_epoch(deployment, history) for _ in range(3)]
    assert [report.outcome for report in again] == ["unchanged"] * 3
    assert in_force(deployment).version == 1


def test_a_running_placer_uses_what_was_published_without_a_restart(deployment, history):
    placer = Deployment(deployment.settings)
    placer.view.snapshot.apply([idle_node(name, placer.view.now()) for name in SPEEDS])
    request = parse_request({"cpu": 1}, task_type="cpu-light", now=0.0, defaults=RequestDefaults())
    before = placer.placing.decide("t", request, deadline=None)
    assert before.parameters_version == 0
    run_epoch(deployment, history)
    placer.view.refresh()
    after = placer.placing.decide("t", request, deadline=None)
    assert after.parameters_version == 1
    assert after.candidate_features()[0][0] == "fast"
    placer.client.close()


def test_the_genes_that_somebody_set_by_hand_stay(deployment, history):
    deployment.parameters.publish(GAParams(alpha=42.0, a1=1.5, theta1=3.0), "cli")
    run_epoch(deployment, history)
    p = in_force(deployment)
    assert (p.alpha, p.a1) == (42.0, 1.5)
    assert p.theta1 < 1.0


def test_what_theta_is_drawn_towards_does_not_creep_from_epoch_to_epoch(deployment):
    history = KnownHistory(*synthetic_history(Truth(speeds=SPEEDS, noise=0.8), 120, seed=3))
    first = run_epoch(deployment, history)
    assert first.theta_prior == (0.1, 0.1, 0.3, 0.2)
    for _ in range(3):
        assert run_epoch(deployment, history).theta == first.theta


def test_disabled_it_keeps_what_is_in_force(redis_url, history):
    off = Deployment(Settings.load(redis={"url": redis_url}, optimiser={"enabled": False}))
    assert "optimiser.enabled" in run_epoch(off, history).reason
    assert off.parameters.read() is None
    off.client.close()


def test_a_dry_run_publishes_nothing_and_says_what_would_change(deployment, history):
    report = run_epoch(deployment, history, may_publish=False)
    assert (report.outcome, report.version) == ("kept", None)
    assert report.changes
    assert deployment.parameters.read() is None


# --- two at once


def test_only_one_epoch_runs_at_a_time_and_two_beats_are_as_one(deployment, history):
    class Meanwhile(KnownHistory):
        def worker_stats(self, since: float, until: float) -> Reading[WorkerStats]:
            self.second = run_epoch(deployment, history)
            return super().worker_stats(since, until)

    slow = Meanwhile(history.records, history.workers)
    assert run_epoch(deployment, slow).outcome == "published"
    assert slow.second.outcome == "skipped"
    assert "runs one" in slow.second.reason
    assert run_epoch(deployment, history, at_intervals=True).outcome == "skipped"
    assert run_epoch(deployment, history).outcome == "unchanged"
    assert len(deployment.epochs.latest()) == 2


def test_an_epoch_that_died_does_not_block_the_next(deployment, history):
    assert deployment.epochs.begin("dead", "gone/1", lease_s=0.0).begun
    assert run_epoch(deployment, history).outcome == "published"
    # The dead one comes back: its report is kept, and it is told.
    assert not deployment.epochs.end("dead", "failed", {"outcome": "failed"})


def test_parameters_that_somebody_published_meanwhile_win(deployment, history):
    class Meanwhile(KnownHistory):
        def worker_stats(self, since: float, until: float) -> Reading[WorkerStats]:
            deployment.parameters.publish(GAParams(alpha=7.0), "cli")
            return super().worker_stats(since, until)

    report = run_epoch(deployment, Meanwhile(history.records, history.workers))
    assert (report.outcome, report.version) == ("kept", None)
    assert "somebody else" in report.reason
    assert in_force(deployment).alpha == 7.0


# --- the search


def outcome(parameters: GAParams | None) -> SearchOutcome:
    return SearchOutcome(parameters, "tried", (0.5, 0.6), (0.4, 0.5), 40, 0.1, 0.05)


def test_what_a_search_found_is_published_and_its_theta_factor_lasts(deployment, history):
    seen: list[SearchInputs] = []

    def search(inputs: SearchInputs) -> SearchOutcome:
        seen.append(inputs)
        theta = inputs.refreshed.theta1
        return outcome(replace(inputs.refreshed, alpha=20.0, **{f"theta{i}": 2 * theta for i in (1, 2, 3, 4)}))

    report = run_epoch(deployment, history, search=search)
    assert in_force(deployment).alpha == 20.0
    assert len(seen[0].history) == 1500
    assert seen[0].refreshed.speed
    assert report.to_json()["search"]["used"] is True
    assert 1.0 < report.theta_factor <= 2.0
    scaled = run_epoch(deployment, history)
    assert in_force(deployment).alpha == 20.0
    assert scaled.theta_factor == report.theta_factor


def test_without_a_better_candidate_the_statistics_are_published(deployment, history):
    report = run_epoch(deployment, history, search=lambda inputs: outcome(None))
    assert report.outcome == "published"
    assert report.to_json()["search"]["used"] is False


def test_a_search_learns_tau_as_the_live_system_does(redis_url, history):
    learning = {"rate": 0.5, "rate_by_type": {"mixed": 0.1}, "outlier_sigma": 2.0, "family_after": 7}
    deployment = Deployment(Settings.load(redis={"url": redis_url}, learning=learning))
    seen = []

    def search(inputs: SearchInputs) -> SearchOutcome:
        seen.append(inputs)
        return outcome(None)

    run_epoch(deployment, history, search=search)
    deployment.client.close()
    assert seen[0].rule == LearningRule(rate=0.5, rate_by_type={"mixed": 0.1}, outlier_sigma=2.0)
    assert seen[0].family_after == 7


def test_a_search_that_breaks_costs_the_search_only(deployment, history, caplog):
    def broken(inputs: SearchInputs) -> SearchOutcome:
        raise ZeroDivisionError("oh")

    report = run_epoch(deployment, history, search=broken)
    assert report.outcome == "published"
    assert report.problems == ("the search failed: ZeroDivisionError: oh",)


# --- bad input


def test_too_few_records_keep_everything_and_that_is_said(deployment, history):
    report = run_epoch(deployment, KnownHistory(history.records[:10]))
    assert (report.outcome, report.version) == ("kept", None)
    assert "10 completions" in report.reason
    assert deployment.parameters.read() is None


def test_a_history_that_cannot_be_reached_keeps_everything_and_redis_has_the_report(deployment, history):
    history.away = HistoryUnavailable("MongoDB does not answer (somewhere)")
    report = run_epoch(deployment, history)
    assert report.outcome == "kept"
    assert "MongoDB does not answer" in report.problems[0]
    assert deployment.epochs.latest()[0]["problems"] == list(report.problems)


def test_a_history_that_cannot_be_written_is_learned_from_all_the_same(deployment, history):
    history.read_only = HistoryReadOnly("MongoDB refused")
    report = run_epoch(deployment, history)
    assert report.outcome == "published"
    assert "Redis has it" in report.problems[0]


def test_parameters_in_force_that_cannot_be_read_are_told(deployment, history):
    broken = {"version": 3, "json": "{", "source": "x", "published": 1}
    deployment.client.hset(deployment.keys.parameters, mapping=broken)
    report = run_epoch(deployment, history)
    assert report.outcome == "failed"
    assert "cloudai params load" in report.reason


def test_an_unforeseen_defect_fails_the_epoch_and_not_the_process(deployment, caplog):
    class Odd(KnownHistory):
        def worker_stats(self, since: float, until: float) -> Reading[WorkerStats]:
            raise KeyError("what")

    report = run_epoch(deployment, Odd())
    assert report.outcome == "failed"
    assert "KeyError" in report.reason
    assert run_epoch(deployment, KnownHistory()).outcome == "kept"


def test_a_history_of_nonsense_completes_and_is_counted(deployment, history):
    nonsense = [
        replace(history.records[0], actual_runtime=math.nan),
        replace(history.records[1], actual_finish=-math.inf),
        replace(history.records[2], features=(math.inf, 1.0, 1.0, 1.0)),
        replace(history.records[3], task_type="dl"),
        replace(history.records[4], actual_runtime=1e12),
    ]
    report = run_epoch(deployment, KnownHistory([*nonsense, *history.records], history.workers))
    assert report.outcome == "published"
    assert len(report.skipped) == 6
    json.dumps(report.to_json(), allow_nan=False)


def test_alien_documents_in_a_real_store_are_left_out(deployment, history, mongo_server: EmbeddedMongo):
    with HistoryStore(mongo_server.url, "alien", timeout_s=10) as store:
        now = deployment.epochs.begin("clock", "test", lease_s=0.0).now
        rows = [document(record, now - 10 - i) for i, record in enumerate(history.records[:200])]
        rows += [
            {"_id": "alien-1", "actual_finish": now - 5, "task_type": "cpu"},
            {"_id": "alien-2", "actual_finish": "yesterday"},
            {"_id": "alien-3", "actual_finish": now - 5, "task_id": 7, "outcome": {"$gt": ""}},
        ]
        with store._connection.database("to seed", writing=True) as database:
            database[RESULTS].delete_many({})
            database[RESULTS].insert_many(rows)
        report = run_epoch(deployment, store)
        assert report.outcome == "published"
        assert (report.records, sum(report.samples.values())) == (200, 200)
        assert report.skipped
        kept = store.epochs(1)[0]
    assert (kept["_id"], kept["outcome"], kept["at"]) == (report.epoch_id, "published", report.at)


def test_a_store_that_does_not_answer(deployment):
    with HistoryStore("mongodb://127.0.0.1:9", "none", timeout_s=0.2) as store:
        report = run_epoch(deployment, store)
    assert report.outcome == "kept"
    assert "MongoDB does not answer" in report.problems[0]


def test_what_it_did_is_logged(deployment, history, caplog):
    with caplog.at_level(logging.INFO):
        run_epoch(deployment, history)
    assert any(record.message.startswith("epoch-ended outcome=published") for record in caplog.records)


def document(record: TaskHistory, at: float) -> dict[str, Any]:
    """As the recorder would have written it, moved to another time."""
    moved = at - record.actual_finish
    values = {name: getattr(record, name) for name in TaskHistory.__slots__}
    for name in ("arrival_time", "deadline", "actual_start", "actual_finish"):
        values[name] += moved
    values["features"] = list(record.features or ())
    return {"_id": f"{record.task_id}/1", **values}


def idle_node(name: str, now: float) -> NodeState:
    return NodeState(
        name=name, cpu_capacity=8000, memory_capacity=1 << 25, slots_capacity=8, cpu_available=8000,
        memory_available=1 << 25, slots_available=8, heartbeat=now,
    )  # fmt: skip


# --- watching what was published


def decided_with(version: int, count: int, kept: float, records: Sequence[TaskHistory]) -> list[TaskHistory]:
    """Newer tasks that these parameters decided, of which a share kept its deadline."""
    now = time.time() + 5
    return [
        replace(
            record, task_id=f"{version}-{number}", parameters_version=version, arrival_time=now + number,
            actual_start=now + number, actual_finish=now + number + (record.actual_runtime or 0.0),
            deadline=now + number + 1e4, sla_success=number < kept * count,
        )
        for number, record in enumerate(records[:count])
    ]  # fmt: skip


def evolved(alpha: float) -> Any:
    """A search that finds this alpha, and counts how often it was asked."""

    def search(inputs: SearchInputs) -> SearchOutcome:
        search.asked += 1
        return outcome(replace(inputs.refreshed, alpha=alpha, a1=3.0))

    search.asked = 0
    return search


def test_evolved_genes_that_cost_deadlines_are_rolled_back_and_searching_rests(deployment, history, caplog):
    deployment.parameters.publish(GAParams(alpha=12.0), "cli")
    history.records = tuple(replace(record, sla_success=True) for record in history.records)
    search = evolved(77.0)
    first = run_epoch(deployment, history, search=search)
    assert first.watch["state"] == "watching"
    assert first.watch["version"] == first.version == 2
    assert (first.watch["before"], first.watch["tasks_before"]) == (1.0, 500)
    assert in_force(deployment).alpha == 77.0
    history.records = (*decided_with(2, 120, 0.5, history.records), *history.records)
    with caplog.at_level(logging.WARNING):
        second = run_epoch(deployment, history, search=search)
    assert second.outcome == "published"
    assert second.reason.startswith("rolled back to the genes before version 2: deadlines kept since version 2: 100.0%")
    assert second.watch["state"] == "rolled back"
    assert "parameters-rolled-back version=3" in caplog.text
    # The genes are those from before; the statistics are fresh.
    p = in_force(deployment)
    assert (p.alpha, p.a1) == (12.0, 1.0)
    assert p.speed["mixed"]["slow"] > p.speed["mixed"]["fast"]
    assert search.asked == 1
    third = run_epoch(deployment, history, search=search)
    assert any("no search for another" in line for line in third.kept)
    assert (search.asked, in_force(deployment).alpha) == (1, 12.0)
    assert json.loads(json.dumps(history.epochs[1]["watch"]))["after"] == 0.5


def test_evolved_genes_that_hold_are_confirmed_and_the_search_goes_on(deployment, history):
    search = evolved(77.0)
    run_epoch(deployment, history, search=search)
    share = sum(record.sla_success for record in history.records) / len(history.records)
    history.records = (*decided_with(1, 450, share, history.records), *history.records)
    assert run_epoch(deployment, history, search=lambda inputs: outcome(None)).watch["state"] == "confirmed"
    assert run_epoch(deployment, history, search=evolved(78.0)).outcome == "published"
    assert in_force(deployment).alpha == 78.0
    assert any("are watched" in line for line in run_epoch(deployment, history, search=search).kept)


def test_while_pinned_nothing_is_published_and_the_epoch_says_so(deployment, history):
    deployment.parameters.pin("somebody")
    report = run_epoch(deployment, history)
    assert report.outcome == "kept"
    assert "pinned by somebody" in report.reason
    assert report.changes
    assert deployment.parameters.read() is None
    assert deployment.parameters.unpin()
    assert run_epoch(deployment, history).outcome == "published"
