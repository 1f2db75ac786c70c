"""Every figure that the project promises, with its goal, in the order in which they are printed."""

from __future__ import annotations

from functools import partial

from cloudai.bench import small_tasks, submission
from cloudai.bench.figures import Promise

PROMISES: tuple[Promise, ...] = (
    Promise("submission-1000-nodes-share", 0.8, "higher", partial(submission.share_of_plain_rate, nodes=1000)),
    Promise("submission-10000-nodes-share", 0.7, "higher", partial(submission.share_of_plain_rate, nodes=10_000)),
    Promise("small-tasks-share", 1.0, "higher", small_tasks.share_of_plain_throughput),
)
