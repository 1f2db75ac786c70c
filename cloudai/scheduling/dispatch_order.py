"""The order in which waiting tasks are offered released capacity, and who gets a node kept (late binding).

Waiting tasks are two groups: those that can still make their deadline, and those that cannot. Serving the
second before the first loses both, so they come last; but they must not wait for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor

from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.requests import TaskRequest

#: A late task that has waited this long is aged: it has a share of the dispatches (s).
AGED_AFTER_S = 60.0
#: ... and so many times the time that it had from its arrival to its deadline.
WINDOWS = 20.0
#: One dispatch in so many is for the aged.
AGED_SHARE = 5
#: A task that has waited this long gets a node kept (s).
STARVING_AFTER_S = 60.0

_DEFAULTS = GAParams()


def can_make_it(now: float, runtime: float, deadline: float, margin: float) -> bool:
    """Whether a task that starts now is expected to end by its deadline, with `margin` times its predicted runtime."""
    return now + margin * runtime <= deadline


def urgency(
    now: float,
    runtime: float,
    deadline: float,
    late: bool,
    order_runtime: float,
    order_lateness: float,
    order_caution: float,
    order_safety: float,
) -> float:
    """The lower goes first: deadline + order_runtime * predicted runtime, and a weight for what it will be short of, s.

    Of a late task that is its predicted lateness, by `order_lateness`. One that can still make it may be so close to
    its deadline that it rather will not, since predictions err: what it lacks of `order_safety` times its runtime
    counts, by `order_caution`.
    """
    weight, margin = (order_lateness, 1.0) if late else (order_caution, order_safety)
    return deadline + order_runtime * runtime + weight * max(now + margin * runtime - deadline, 0.0)


def waited_too_long(waited_s: float, window_s: float, after_s: float) -> bool:
    """Whether a late task is aged: it has waited `after_s`, and many times what it had from arrival to deadline.

    With a fixed bound alone nearly every task of a crowded fleet with long jobs would be aged, and a fifth of the
    capacity would go to those that are late already.
    """
    return waited_s >= after_s and waited_s >= WINDOWS * window_s


def most_kept(nodes: int) -> int:
    """How many of so many nodes are kept for starving tasks at once, at most: little of the fleet may stand idle."""
    return max(1, nodes // 20)


@dataclass(frozen=True, slots=True)
class Waiting:
    """One task of the waiting set."""

    task_id: str
    request: TaskRequest
    #: epoch s
    deadline: float
    #: epoch s
    waiting_since: float
    #: 0 goes first, as in Celery's Redis transport; orders tasks whose deadlines fall into the same second
    priority: int = 0


def dispatch_order(
    waiting: Iterable[Waiting],
    runtimes: Mapping[str, float],
    now: float,
    *,
    weights: GAParams = _DEFAULTS,
    aged_after_s: float = AGED_AFTER_S,
    aged_share: int = AGED_SHARE,
) -> list[Waiting]:
    """Order the waiting tasks, the first to be offered capacity first. Deterministic.

    `runtimes` has the predicted runtime of each task by its id, s, on the best node that can take it now
    (missing: 0, so that it can make it while its deadline is ahead). First come those with now + runtime <=
    deadline, earliest deadline first; then the late ones, earliest deadline first. That is the order with the
    default `weights`, the parameters' genes of the dispatch order: `order_margin` times the runtime has to
    fit before the deadline, and `urgency` takes the place of the deadline.

    Aging: of the late ones, those that have waited too long (`waited_too_long`) take every `aged_share`-th place,
    longest waiting first. Where the count of places starts moves with the clock, one place a second, so that the aged
    have the same share of calls that can place one task only: in one second of `aged_share` an aged task
    leads.
    """
    in_time: list[_Ranked] = []
    late: list[_Ranked] = []
    aged: list[Waiting] = []
    for task in waiting:
        runtime, deadline = runtimes.get(task.task_id, 0.0), task.deadline
        is_late = not can_make_it(now, runtime, deadline, weights.order_margin)
        if is_late and waited_too_long(now - task.waiting_since, deadline - task.waiting_since, aged_after_s):
            aged.append(task)
            continue
        key = urgency(
            now, runtime, deadline, is_late, weights.order_runtime, weights.order_lateness, weights.order_caution,
            weights.order_safety,
        )  # fmt: skip
        (late if is_late else in_time).append(_ranked(key, task))
    in_time.sort()
    late.sort()
    ordinary = [ranked[-1] for ranked in (*in_time, *late)]
    aged.sort(key=_age)
    return _interleaved(ordinary, aged, floor(now), aged_share)


def starving(
    waiting: Iterable[Waiting], now: float, after_s: float = STARVING_AFTER_S, at_most: int = 1
) -> list[Waiting]:
    """The tasks for which a node is to be kept now, longest waiting first (backfill with a reservation).

    Small tasks may pass a large one that does not fit. Once it has waited `after_s` seconds, one node that
    could hold it takes nothing else until it fits; the small ones go on passing it everywhere else. The
    caller leaves out tasks that have a node kept already. At most `at_most` are named, so that little of the
    fleet stands idle.
    """
    return sorted((task for task in waiting if now - task.waiting_since >= after_s), key=_age)[:at_most]


def _interleaved(ordinary: list[Waiting], aged: list[Waiting], start: int, share: int) -> list[Waiting]:
    order: list[Waiting] = []
    first, second = iter(ordinary), iter(aged)
    for place in range(start, start + len(ordinary) + len(aged)):
        preferred, other = (second, first) if place % share == 0 else (first, second)
        chosen = next(preferred, None) or next(other, None)
        if chosen is not None:
            order.append(chosen)
    return order


#: What orders two tasks, and the task; ids differ, so that tasks themselves are never compared.
_Ranked = tuple[int, int, float, float, str, Waiting]


def _ranked(key: float, task: Waiting) -> _Ranked:
    return floor(key), task.priority, key, task.waiting_since, task.task_id, task


def _age(task: Waiting) -> tuple[float, int, str]:
    return task.waiting_since, task.priority, task.task_id
