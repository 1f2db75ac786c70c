"""Evolved genes are watched: what falls is taken back, what holds is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudai.history.records import TaskHistory
from cloudai.scheduling.parameters import GAParams
from cloudai_beat.watching import (
    CONFIRMED,
    REST_S,
    ROLLED_BACK,
    WATCHING,
    Watch,
    begun,
    has_fallen,
    looked_at,
    told,
)

NOW = 1000.0


def attempts(count: int, kept: float, version: int, arrival: float = NOW) -> list[TaskHistory]:
    """So many ended tasks, of which a share kept its deadline."""
    return [
        TaskHistory(
            task_id=f"{version}-{number}", attempt=1, worker_id="n", task_type="mixed", outcome="succeeded", final=True,
            arrival_time=arrival + number, deadline=arrival + number + 10, actual_start=arrival + number,
            actual_finish=arrival + number + 5, actual_runtime=5.0, sla_success=number < kept * count,
            parameters_version=version,
        )
        for number in range(count)
    ]  # fmt: skip


def watch_over(kept: float = 0.9, count: int = 300) -> Watch:
    return begun(5, NOW, attempts(count, kept, 4, 0.0), GAParams(alpha=3.0), 1.5)


def test_what_was_before_is_counted_when_it_begins() -> None:
    watch = begun(5, NOW, [*attempts(50, 0.0, 5), *attempts(200, 0.75, 4), *attempts(100, 0.75, 2)], GAParams(), 1.0)
    assert (watch.before, watch.tasks_before, watch.state) == (0.75, 300, WATCHING)


def test_a_fall_rolls_back_and_searching_rests() -> None:
    watch = looked_at(watch_over(), attempts(100, 0.6, 5), NOW + 60)
    assert (watch.state, watch.after, watch.tasks_after) == (ROLLED_BACK, 0.6, 100)
    assert watch.rest_until == NOW + 60 + REST_S
    assert told(watch) == "deadlines kept since version 5: 90.0% of 300 tasks before, 60.0% of 100 since"
    before = watch.parameters_before()
    assert before is not None
    assert before.alpha == 3.0


@pytest.mark.parametrize("kept", [0.88, 0.9, 1.0])
def test_what_holds_is_confirmed_once_there_are_enough_tasks(kept: float) -> None:
    assert looked_at(watch_over(), attempts(100, kept, 5), NOW).state == WATCHING
    assert looked_at(watch_over(), attempts(450, kept, 6), NOW).state == CONFIRMED


def test_few_tasks_say_nothing() -> None:
    assert looked_at(watch_over(), attempts(20, 0.0, 5), NOW).state == WATCHING
    assert looked_at(watch_over(count=20), attempts(300, 0.0, 5), NOW).state == WATCHING
    assert looked_at(begun(5, NOW, [], GAParams(), 1.0), attempts(300, 0.0, 5), NOW).state == WATCHING


def test_tasks_that_other_genes_decided_or_that_were_cancelled_do_not_count() -> None:
    others = attempts(300, 0.0, 4)
    cancelled = [replace(record, outcome="cancelled") for record in attempts(300, 0.0, 5)]
    watch = looked_at(watch_over(), [*others, *cancelled, *attempts(60, 0.9, 5)], NOW)
    assert (watch.state, watch.tasks_after) == (WATCHING, 60)


def test_an_ended_watch_is_not_judged_again() -> None:
    watch = looked_at(watch_over(), attempts(450, 0.9, 5), NOW)
    assert looked_at(watch, attempts(450, 0.0, 5), NOW) == watch


def test_chance_is_no_fall() -> None:
    assert not has_fallen(0.9, 300, 0.86, 100)
    assert not has_fallen(0.5, 50, 0.35, 50)
    assert has_fallen(0.9, 300, 0.7, 100)


def test_it_is_kept_as_json_and_anything_else_is_none() -> None:
    watch = watch_over()
    assert Watch.from_json(watch.to_json()) == watch
    assert Watch.from_json({"version": 1}) is None
    assert Watch.from_json(None) is None
    assert replace(watch, parameters="broken").parameters_before() is None
    assert "parameters" not in watch.shown()
