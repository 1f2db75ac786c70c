"""What is read back: a fair share for every type and node, and types of today."""

from __future__ import annotations

from collections import Counter

import pytest

from cloudai.history.reading import stratified
from cloudai.history.records import TaskHistory
from cloudai.history.task_types import normalised_type
from cloudai.history.worker_window import workers_over_window


def record(number: int, kind: str = "mixed", node: str = "n") -> TaskHistory:
    return TaskHistory(
        task_id=f"{kind}-{node}-{number}", attempt=1, worker_id=node, task_type=kind, outcome="succeeded", final=True,
        arrival_time=0.0, deadline=1.0, actual_start=None, actual_finish=float(number), actual_runtime=None,
        sla_success=True,
    )  # fmt: skip


def test_a_sample_of_ten_thousand_keeps_the_rare_and_the_newest():
    records = [record(i, "cpu-light", f"n{i % 3}") for i in range(30_000)]
    records += [record(i, "gpu-training", "g") for i in range(200)]
    chosen = stratified(records, 10_000)
    assert len(chosen) == 10_000
    counts = Counter((r.task_type, r.worker_id) for r in chosen)
    assert counts["gpu-training", "g"] == 200
    assert sorted(counts["cpu-light", f"n{i}"] for i in range(3)) == [3266, 3267, 3267]
    assert min(r.actual_finish for r in chosen if r.worker_id == "n0") >= 30_000 - 3 * 3267
    assert [r.actual_finish for r in chosen] == sorted((r.actual_finish for r in chosen), reverse=True)


def test_a_sample_has_no_more_than_its_limit_and_no_less_than_there_is():
    records = [record(i, kind, node) for i in range(7) for kind in ("mixed", "cpu-light") for node in "abc"]
    for limit in (1, 2, 5, 6, 41, 42, 43):
        assert len(stratified(records, limit)) == min(limit, 42)
    assert stratified([], 10) == []


@pytest.mark.parametrize(
    ("label", "cpu", "memory", "gpu", "today"),
    [
        ("mixed", 8, 0, 0, "mixed"),
        ("", 8, 0, 0, "cpu-heavy"),
        (None, 1, 16, 0, "memory-heavy"),
        (None, 8, 0, 3, "gpu-training"),
        ("cpu", 8, 0, 0, "cpu-light"),
        ("gpu", 8, 0, 3, "gpu-inference"),
        ("dl", 0, 0, 0, "gpu-training"),
        ("CPU", 1, 0, 0, "mixed"),
        (17, 1, 0, 0, "mixed"),
    ],
)
def test_old_labels_are_brought_to_the_six_of_today(label, cpu, memory, gpu, today):
    assert normalised_type(label, cpu=cpu, memory=memory, gpu=gpu) == today


# --- nodes over a window


def sample(time: float, overload: float, *, incarnation: str = "i", registered: float = 0.0) -> dict[str, object]:
    return {
        "worker_id": "n", "incarnation": incarnation, "registered_at": registered, "time": time,
        "overload_s": overload, "overload_excess_s": overload / 2,
    }  # fmt: skip


def over(samples: list[dict[str, object]], since: float, until: float):
    skipped: Counter[str] = Counter()
    stats = workers_over_window([], samples, [], since, until, skipped)
    assert not skipped
    return [(round(s.total_time, 6), round(s.overload_time, 6), round(s.overload_excess, 6)) for s in stats]


def test_clocks_are_read_off_between_their_samples():
    samples = [sample(600, 60), sample(1200, 60)]
    assert over(samples, 0, 600) == [(600, 60, 30)]
    assert over(samples, 300, 900) == [(600, 30, 15)]
    assert over(samples, 600, 1200) == [(600, 0, 0)]


def test_a_node_counts_from_its_start_to_its_last_word():
    assert over([sample(600, 10, registered=500)], 0, 10_000) == [(100, 10, 5)]
    assert over([sample(600, 10)], 700, 800) == []


def test_incarnations_are_added_up():
    samples = [sample(100, 10, incarnation="a"), sample(300, 5, incarnation="b", registered=200)]
    assert over(samples, 0, 400) == [(200, 15, 7.5)]


def test_a_clock_that_ran_back_stands_still():
    assert over([sample(100, 50), sample(200, 20)], 0, 200) == [(200, 50, 25)]


def test_samples_that_cannot_be_read_are_counted():
    skipped: Counter[str] = Counter()
    bad = [{**sample(1, 1), "worker_id": None}, {**sample(1, 1), "registered_at": 5.0}, {**sample(1, 1), "time": "x"}]
    assert workers_over_window([{"worker_id": "n"}], bad, [{}], 0, 10, skipped) == []
    assert sum(skipped.values()) == 5
