"""The clock of overload: it runs while the load is above 1."""

from __future__ import annotations

import pytest

from cloudai_workers.overload import OverloadClock


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_runs_from_one_sample_to_the_next_as_the_earlier_one_said():
    time = Time()
    clock = OverloadClock(time)
    for pressure, seconds in ((0.5, 10), (1.5, 4), (1.0, 5), (3.0, 2), (float("nan"), 7)):
        clock.tell(pressure)
        time.now += seconds
    overload_s, excess_s = clock.read()
    assert overload_s == pytest.approx(6)
    assert excess_s == pytest.approx(0.5 * 4 + 2.0 * 2)


def test_it_may_be_read_while_it_runs():
    time = Time()
    clock = OverloadClock(time)
    clock.tell(2.0)
    readings = []
    for _ in range(3):
        time.now += 1
        readings.append(clock.overload_s())
    assert readings == [1, 2, 3]
