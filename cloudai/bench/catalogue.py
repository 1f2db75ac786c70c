"""Every figure that the project promises, with its goal, in the order in which they are printed."""

from __future__ import annotations

from functools import cache, partial
from importlib.metadata import entry_points

from cloudai.bench import bulk, containers, memory, placement, scoring, small_tasks, submission
from cloudai.bench.figures import Promise


def _submission(nodes: int, goal: float) -> Promise:
    return Promise(
        f"submission-{nodes}-nodes-share",
        goal,
        "higher",
        partial(submission.share_of_plain_rate, nodes=nodes),
        partial(submission.profile, nodes=nodes),
    )


#: Group of the entry points of figures that other packages of the distribution promise: tuples of Promise.
FIGURES = "cloudai.bench"

_OWN: tuple[Promise, ...] = (
    Promise("scoring-1000-nodes-us", 25, "lower", partial(scoring.microseconds, nodes=1000)),
    Promise("scoring-10000-nodes-us", 80, "lower", partial(scoring.microseconds, nodes=10_000)),
    Promise("placement-1000-nodes-p99-ms", 1.0, "lower", partial(placement.p99_milliseconds, nodes=1000)),
    _submission(1000, 0.8),
    _submission(10_000, 0.7),
    Promise(
        "bulk-submission-multiple",
        4.0,
        "higher",
        bulk.times_group_rate,
        partial(submission.profile, nodes=1000, bulk=True),
    ),
    Promise("small-tasks-share", 1.0, "higher", small_tasks.share_of_plain_throughput),
    Promise("container-time-ratio", 1.10, "lower", containers.time_ratio),
    Promise("redis-per-task-bytes", 1500, "lower", memory.bytes_per_task),
    Promise("redis-per-node-bytes", 4000, "lower", memory.bytes_per_node),
)


@cache
def promises() -> tuple[Promise, ...]:
    """All of them: ours, then those of the entry points, by their names."""
    others = sorted(entry_points(group=FIGURES), key=lambda point: point.name)
    return _OWN + tuple(promise for point in others for promise in point.load())
