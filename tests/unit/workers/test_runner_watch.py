"""What a node says of its runner, and when."""

from __future__ import annotations

import logging
import threading

import pytest
import redis

from cloudai_workers import runner_watch
from cloudai_workers.runner_watch import RunnerWatch

from ...waiting import until


class Runner:
    """One whose engine answers, or does not."""

    name = "docker"

    def __init__(self) -> None:
        self.problem: str | None = None
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()

    def check(self) -> str | None:
        self.asked += 1
        self.answers.wait(60)
        return self.problem

    def notices(self) -> list[str]:
        return ["it does not enforce something"]


class Told:
    """What the fleet was told, and in which order."""

    def __init__(self) -> None:
        self.runner = Runner()
        self.calls: list[str] = []
        self.redis_away = False
        self.watch = RunnerWatch(self.runner, "n", interval_s=600.0, back=self._back, announce=self._announce)

    def _back(self) -> None:
        self.calls.append("back")

    def _announce(self) -> None:
        if self.redis_away:
            raise redis.ConnectionError("away")
        self.calls.append(self.watch.problem or "fine")


@pytest.fixture
def told() -> Told:
    return Told()


def test_what_has_not_changed_is_not_announced(told: Told) -> None:
    assert told.watch.begin() is None
    told.watch.look()
    told.runner.problem = "no engine"
    told.watch.look()
    told.runner.problem = "no engine, in other words"
    told.watch.look()
    assert told.calls == ["no engine"]
    assert told.watch.problem == "no engine, in other words"


def test_what_was_left_is_ended_before_jobs_come_again(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    told.runner.problem = "no engine"
    assert told.watch.begin() == "no engine"
    told.runner.problem = None
    with caplog.at_level(logging.WARNING):
        told.watch.look()
    assert told.calls == ["back", "fine"]
    assert "runner-back" in caplog.text
    assert "it does not enforce something" in caplog.text


def test_what_redis_did_not_hear_is_announced_with_the_next_look(told: Told) -> None:
    told.watch.begin()
    told.runner.problem, told.redis_away = "no engine", True
    with pytest.raises(redis.ConnectionError):
        told.watch.look()
    told.redis_away = False
    told.watch.look()
    told.watch.look()
    assert told.calls == ["no engine"]


def test_once_a_job_has_missed_the_runner_it_is_looked_for_often(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_watch, "AWAY_INTERVAL_S", 0.01)
    told.watch.begin()
    told.watch.start()  # the next look of its own is in ten minutes
    told.runner.problem = "no engine"
    told.watch.look()
    told.runner.problem = None
    until(lambda: told.calls == ["no engine", "back", "fine"], "its return is seen")
    told.watch.stop()


class Turnstile:
    """A lock that knows how many have come to it."""

    def __init__(self) -> None:
        self.came = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.came += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_an_engine_that_hangs_is_asked_once_for_all_who_wait(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    turnstile = Turnstile()
    monkeypatch.setattr(told.watch, "_lock", turnstile)
    told.watch.begin()
    told.runner.answers.clear()
    threads = [threading.Thread(target=told.watch.look) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: turnstile.came == 4, "one asks, and the others wait for it")
    told.runner.problem = "it hangs"
    told.runner.answers.set()
    for thread in threads:
        thread.join(60)
    assert told.calls == ["it hangs"]
    assert told.runner.asked == 2  # at the beginning, and now
