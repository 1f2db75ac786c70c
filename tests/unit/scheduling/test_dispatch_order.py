from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cloudai.scheduling.dispatch_order import Waiting, dispatch_order, most_kept, starving
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.requests import Resources, TaskRequest
from cloudai.scheduling.task_types import TaskType

REQUEST = TaskRequest(Resources(1000, 1 << 20), TaskType.CPU_LIGHT)
# Not a second in which the aged lead.
NOW = 1001.0


def waiting(task_id: str, deadline: float, since: float = NOW - 1, priority: int = 0) -> Waiting:
    return Waiting(task_id, REQUEST, deadline, since, priority)


def order(tasks: list[Waiting], now: float = NOW, runtimes: dict[str, float] | None = None) -> str:
    return "".join(task.task_id for task in dispatch_order(tasks, runtimes or {}, now))


def test_those_that_can_make_it_go_by_deadline_and_the_late_come_after() -> None:
    tasks = [waiting("l", NOW - 5), waiting("c", NOW + 30), waiting("a", NOW + 10), waiting("b", NOW + 20)]
    assert order(tasks) == "abcl"


def test_a_task_is_late_when_its_best_runtime_no_longer_fits() -> None:
    tasks = [waiting("a", NOW + 10), waiting("b", NOW + 20)]
    assert order(tasks, runtimes={"a": 11.0, "b": 20.0}) == "ba"


def test_priority_orders_deadlines_of_the_same_second() -> None:
    tasks = [
        waiting("a", NOW + 10.1, priority=5),
        waiting("b", NOW + 10.9),
        waiting("c", NOW + 9.9, priority=9),
    ]
    assert order(tasks) == "cba"


def test_the_aged_have_every_fifth_place_longest_waiting_first() -> None:
    in_time = [waiting(name, NOW + 100 + place) for place, name in enumerate("abcdefg")]
    aged = [waiting("Y", NOW - 69, NOW - 70), waiting("X", NOW - 86, NOW - 90)]
    late = [waiting("l", NOW - 500, NOW - 59)]
    assert order([*aged, *late, *in_time]) == "abcdXefglY"
    assert order([*aged, *late, *in_time], now=1000.0)[0] == "X"


def test_a_late_task_is_aged_when_it_has_waited_many_times_what_its_deadline_gave_it() -> None:
    asked_for_much = waiting("m", NOW - 50, NOW - 90)
    assert order([asked_for_much, waiting("a", NOW + 9)], now=1000.0) == "am"
    assert order([replace(asked_for_much, deadline=NOW - 87), waiting("a", NOW + 9)], now=1000.0) == "ma"


def test_few_nodes_are_kept_at_once() -> None:
    assert [most_kept(nodes) for nodes in (1, 16, 40, 1000)] == [1, 1, 2, 50]


def test_an_aged_task_leads_in_one_second_of_five_so_that_it_does_not_starve() -> None:
    tasks = [waiting("a", 5000.0), waiting("X", 0.0, 0.0)]
    leads = [order(tasks, now=1000.0 + second)[0] for second in range(10)]
    assert leads.count("X") == 2
    assert leads.count("a") == 8


@given(
    st.lists(
        st.tuples(st.floats(900, 1200), st.floats(0, 1000), st.integers(0, 9)),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_every_task_comes_once_and_the_input_order_does_not_matter(
    rows: list[tuple[float, float, int]], random: object
) -> None:
    tasks = [waiting(str(number), *row) for number, row in enumerate(rows)]
    shuffled = list(tasks)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = dispatch_order(tasks, {}, NOW)
    assert first == dispatch_order(shuffled, {}, NOW)
    assert sorted(task.task_id for task in first) == sorted(task.task_id for task in tasks)


def test_who_starves_is_named_longest_waiting_first() -> None:
    tasks = [waiting("a", NOW, NOW - 59), waiting("b", NOW, NOW - 61), waiting("c", NOW, NOW - 99)]
    assert [task.task_id for task in starving(tasks, NOW)] == ["c"]
    assert [task.task_id for task in starving(tasks, NOW, at_most=5)] == ["c", "b"]
    assert [task.task_id for task in starving(tasks, NOW, 10.0, at_most=5)] == ["c", "b", "a"]
    assert starving([], NOW) == []


def weighted(tasks: list[Waiting], runtimes: dict[str, float], **weights: float) -> str:
    found = dispatch_order(tasks, runtimes, NOW, weights=GAParams(**weights))  # type: ignore[arg-type]
    return "".join(task.task_id for task in found)


def test_the_margin_says_how_much_of_the_runtime_must_fit() -> None:
    tasks = [waiting("a", NOW + 10), waiting("b", NOW + 20)]
    runtimes = {"a": 12.0, "b": 12.0}
    assert weighted(tasks, runtimes) == "ba"
    assert weighted(tasks, runtimes, order_margin=0.5) == "ab"
    assert weighted(tasks, runtimes, order_margin=2.0) == "ab"


def test_the_runtimes_weight_lets_short_tasks_pass() -> None:
    tasks = [waiting("a", NOW + 30), waiting("b", NOW + 35)]
    runtimes = {"a": 20.0, "b": 5.0}
    assert weighted(tasks, runtimes) == "ab"
    assert weighted(tasks, runtimes, order_runtime=1.0) == "ba"


def test_the_lateness_weight_orders_the_late_by_runtime() -> None:
    tasks = [waiting("a", NOW + 1), waiting("b", NOW + 2)]
    runtimes = {"a": 20.0, "b": 5.0}
    assert weighted(tasks, runtimes) == "ab"
    assert weighted(tasks, runtimes, order_lateness=1.0) == "ba"


def test_caution_lets_those_pass_that_will_surely_make_it() -> None:
    # A second to spare of ten, and half of the runtime.
    tasks = [waiting("a", NOW + 11), waiting("b", NOW + 15)]
    runtimes = {"a": 10.0, "b": 10.0}
    assert weighted(tasks, runtimes) == "ab"
    assert weighted(tasks, runtimes, order_caution=3.0) == "ab"
    assert weighted(tasks, runtimes, order_caution=3.0, order_safety=1.5) == "ba"
    assert weighted(tasks, runtimes, order_caution=0.5, order_safety=1.5) == "ab"


def test_caution_is_not_for_the_late() -> None:
    tasks = [waiting("a", NOW + 1), waiting("b", NOW + 2)]
    runtimes = {"a": 20.0, "b": 5.0}
    assert weighted(tasks, runtimes, order_caution=9.0, order_safety=2.0) == "ab"
