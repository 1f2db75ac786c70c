"""The lease by the node's own clock, and what the keeper does when it runs out."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from cloudai_workers.keeper import LeaseKeeper
from cloudai_workers.lease import Lease, now_s
from cloudai_workers.runners import watch as watch_module
from cloudai_workers.runners.base import StopHandle
from cloudai_workers.runners.watch import Outcome, Watch

from ...waiting import until

JOB = ("t", 1)


class Runner:
    """Notes what it is told; fails as often as it is asked to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []
        self.ago: list[float] = []
        self.failures = 0

    def pause(self, task_id: str, attempt: int, ago_s: float = 0.0) -> bool:
        if self.failures:
            self.failures -= 1
            raise OSError("the engine is away")
        self.told.append(("pause", task_id, attempt))
        self.ago.append(ago_s)
        return True

    def resume(self, task_id: str, attempt: int) -> bool:
        self.told.append(("resume", task_id, attempt))
        return True


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def lease() -> Lease:
    return Lease(1000.0, 100.0)


@pytest.fixture
def keeper(runner: Runner, lease: Lease) -> Iterator[LeaseKeeper]:
    keeper = LeaseKeeper(lease, runner, jobs=lambda: [JOB], tenant=lambda: True, pauses=True)  # type: ignore[arg-type]
    keeper.start()
    yield keeper
    keeper.stop()


def test_the_moments_of_a_lease_follow_each_other() -> None:
    lease = Lease(120.0, 10.0)
    lease.renewed(1000.0)
    assert (lease.pause_at, lease.guard_at, lease.over_at) == (1110.0, 1111.0, 1130.0)
    short = Lease(4.0, 3.9)
    short.renewed(0.0)
    assert 0 < short.pause_at == 3.0 < short.guard_at < 4.0 < short.over_at


def test_nothing_is_paused_while_the_lease_lasts(keeper: LeaseKeeper, runner: Runner) -> None:
    keeper.renewed(now_s())
    assert keeper.paused() == {}
    keeper.wait_valid(StopHandle())
    assert runner.told == []


def test_a_lease_that_ran_out_pauses_once_and_a_renewal_lets_go_on(keeper: LeaseKeeper, runner: Runner) -> None:
    runner.failures = 1
    keeper.renewed(now_s() - 901)
    until(keeper.paused)
    assert runner.told == [("pause", *JOB)]
    keeper.renewed(now_s())
    keeper.resume(JOB)
    keeper.resume(JOB)
    assert keeper.paused() == {}
    assert runner.told == [("pause", *JOB), ("resume", *JOB)]


def test_what_the_guardian_did_while_this_process_was_stopped_counts_from_then(
    keeper: LeaseKeeper, runner: Runner
) -> None:
    keeper.renewed(now_s() - 2000)  # the guardian paused 901 s after that
    until(keeper.paused)
    assert runner.ago[0] > 1000
    assert keeper.paused()[JOB] > 1000


def test_a_job_does_not_start_while_the_lease_is_over(keeper: LeaseKeeper) -> None:
    keeper.renewed(now_s() - 2000)
    started = threading.Event()
    control = StopHandle()
    thread = threading.Thread(target=lambda: (keeper.wait_valid(control), started.set()))
    thread.start()
    assert not started.wait(0.3)
    keeper.renewed(now_s())
    assert started.wait(60)
    keeper.renewed(now_s() - 2000)
    control.stop()
    keeper.wait_valid(control)


def test_a_node_may_be_told_to_let_jobs_run_on(runner: Runner, lease: Lease) -> None:
    keeper = LeaseKeeper(lease, runner, jobs=lambda: [JOB], tenant=lambda: True, pauses=False)  # type: ignore[arg-type]
    keeper.start()
    keeper.renewed(now_s() - 2000)
    keeper.wait_valid(StopHandle())
    keeper.stop()
    assert runner.told == []


def test_jobs_that_a_new_incarnation_looks_after_are_left_alone(runner: Runner, lease: Lease) -> None:
    asked = threading.Event()

    def not_ours() -> bool:
        asked.set()
        return False

    keeper = LeaseKeeper(lease, runner, jobs=lambda: [JOB], tenant=not_ours, pauses=True)  # type: ignore[arg-type]
    keeper.start()
    keeper.renewed(now_s() - 2000)
    assert asked.wait(60)
    keeper.stop()
    assert runner.told == []


def test_a_pause_that_is_heard_of_late_keeps_a_job_from_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "STALLED_S", 60.0)
    watch = Watch(StopHandle(), 100.0)
    watch.begin(elapsed_s=1000.0)  # as after this process was stopped for long
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(watch.wait()))
    thread.start()
    watch.pause(ago_s=960.0)
    assert watch.elapsed_s == pytest.approx(40.0, abs=1)
    assert watch.paused_s >= 960.0
    watch.resume()
    watch.ended()
    thread.join(60)
    assert outcomes == [Outcome.ENDED]
