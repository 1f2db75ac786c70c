"""The collections of the history, and how each is found and kept (spec section 8)."""

from __future__ import annotations

#: One document a node name: capacity, labels, state, as last heard.
WORKER_REGISTRY = "WORKER_REGISTRY"
#: One document a node, incarnation and stretch of time: its clocks of presence and overload.
WORKER_STATS = "WORKER_STATS"
#: One document a task id: what was asked, and where it stands.
TASKS = "TASKS"
#: One document an attempt: where it was placed, by which features.
ASSIGNMENTS = "ASSIGNMENTS"
#: One document an attempt that has ended: TaskHistory.
RESULTS = "RESULTS"
#: Tau over time.
TAU_HISTORY = "TAU_HISTORY"
#: One document an epoch of the optimiser.
GA_EPOCHS = "GA_EPOCHS"
#: One document for each publication of parameters.
PARAMETERS = "PARAMETERS"

#: Fields of each index beside those of ids and retention, -1: descending. Each makes every write dearer. The attempts
#: of a task are found by their ids, which begin with the task's.
INDEXES: dict[str, tuple[tuple[tuple[str, int], ...], ...]] = {
    RESULTS: ((("actual_finish", -1),), (("task_type", 1), ("actual_finish", -1))),
    WORKER_STATS: ((("time", -1),),),
    TAU_HISTORY: ((("time", -1),),),
    GA_EPOCHS: ((("time", -1),),),
    PARAMETERS: ((("published_at", -1),),),
}

#: What is dropped once its `at` (a date) is older than the retention. Of the others the newest always stays.
EXPIRING = (TASKS, ASSIGNMENTS, RESULTS, WORKER_STATS, TAU_HISTORY, GA_EPOCHS)
