"""Every metric that CloudAI exports, once: name, kind, unit (in the name) and meaning (spec section 10).

The values are in Redis, counted by whichever process something happens in, so one exporter serves them for a whole
deployment (metrics_collector.py, `cloudai metrics`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]

_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count"),
}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    #: Without the ending of its kind.
    name: str
    kind: Kind
    #: One sentence.
    meaning: str
    labels: tuple[str, ...] = ()

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that Prometheus has it under."""
        return tuple(self.name + suffix for suffix in _SUFFIXES[self.kind])


UP = Metric("cloudai_up", "gauge", "1: the state in Redis could be read; 0: it could not, and nothing else is told")

# Decisions and placements
DECISION_SECONDS = Metric(
    "cloudai_decision_seconds",
    "histogram",
    "time to decide where one task goes, in the process that decides, without the round trip to Redis",
)
PLACEMENTS = Metric("cloudai_placements", "counter", "tasks placed on a node by a decision")
FALLBACKS = Metric(
    "cloudai_fallbacks", "counter", "placements that Round-Robin decided in the scheduler's place", ("reason",)
)
WORKER_PLACEMENTS = Metric(
    "cloudai_worker_placements", "counter", "tasks placed on this node by a decision", ("worker",)
)

# Tasks
TASKS_IN_FLIGHT = Metric("cloudai_tasks_in_flight", "gauge", "accepted tasks that have not ended")
TASKS_WAITING = Metric("cloudai_tasks_waiting", "gauge", "tasks that wait for capacity")
TASKS_DELAYED = Metric("cloudai_tasks_delayed", "gauge", "tasks that wait for their ETA")
TASKS_ON_WORKER = Metric(
    "cloudai_tasks_on_worker", "gauge", "tasks that are placed on this node or run there", ("worker",)
)
ATTEMPTS_ENDED = Metric(
    "cloudai_attempts_ended",
    "counter",
    "attempts that ended, and tasks that ended without one; `retried` and `requeued` go on",
    ("outcome",),
)
ATTEMPTS_LOST = Metric("cloudai_attempts_lost", "counter", "attempts that were lost with their node")
SLA_VIOLATIONS = Metric(
    "cloudai_sla_violations",
    "counter",
    "tasks that ended on this node without success by their deadline; worker \"\": on none",
    ("worker",),
)
DEAD_LETTERS = Metric("cloudai_dead_letters", "counter", "frames in the broker that no node could read")
DEAD_LETTERS_KEPT = Metric("cloudai_dead_letters_kept", "gauge", "such frames that are kept to be looked at")

# Nodes
WORKERS = Metric("cloudai_workers", "gauge", "nodes by state: up, draining, stale, lost, down", ("state",))
WORKER_LOAD = Metric(
    "cloudai_worker_load", "gauge", "load L of the node: 0 is idle, 1 saturated; absent where not measured", ("worker",)
)
WORKER_CAPACITY = Metric(
    "cloudai_worker_capacity",
    "gauge",
    "what the node has: cpu in cores, memory and storage in GiB, gpu in devices, slots",
    ("worker", "resource"),
)
WORKER_RESERVED = Metric(
    "cloudai_worker_reserved", "gauge", "what of that is reserved for tasks", ("worker", "resource")
)

# Learned runtimes
TAU_SECONDS = Metric("cloudai_tau_seconds", "gauge", "tau, the expected runtime of the type", ("task_type",))
TAU_SIGMA_SECONDS = Metric(
    "cloudai_tau_sigma_seconds", "gauge", "standard deviation of the type's runtimes around tau", ("task_type",)
)
TAU_SAMPLES = Metric(
    "cloudai_tau_samples",
    "gauge",
    "completions that tau was learned from since it was last set by hand",
    ("task_type",),
)
TAU_REJECTED = Metric(
    "cloudai_tau_rejected",
    "counter",
    "runtimes that tau did not learn from: `outlier`, or `refused` (not finite and positive)",
    ("reason",),
)
PREDICTION_ERROR_SECONDS = Metric(
    "cloudai_prediction_error_seconds",
    "summary",
    "how far the predicted runtime of a success was from the actual one, either way",
    ("task_type",),
)
PREDICTED_RUNTIME_SECONDS = Metric(
    "cloudai_predicted_tasks_runtime_seconds",
    "counter",
    "actual runtime of those successes, to see their error in proportion",
    ("task_type",),
)

# Parameters
PARAMETERS_VERSION = Metric(
    "cloudai_parameters_version", "gauge", "version of the parameters in force; 0: the defaults"
)
THETA = Metric(
    "cloudai_theta", "gauge", "theta in force, by feature: cpu, memory, gpu, load", ("feature",)
)
AFFINITY_ENTRIES = Metric("cloudai_affinity_entries", "gauge", "entries of the affinity matrix in force")
PENALTY_ENTRIES = Metric("cloudai_penalty_entries", "gauge", "entries of the penalty vector in force")
SPEED_ENTRIES = Metric("cloudai_speed_entries", "gauge", "pairs of type and node whose speed is known")
WORKER_PENALTY = Metric("cloudai_worker_penalty", "gauge", "penalty of the node in force", ("worker",))

# The optimiser
EPOCHS = Metric(
    "cloudai_epochs", "counter", "epochs of the optimiser: published, unchanged, kept or failed", ("outcome",)
)
EPOCH_TIMESTAMP_SECONDS = Metric(
    "cloudai_epoch_timestamp_seconds", "gauge", "when the latest epoch began, Unix time"
)
EPOCH_DURATION_SECONDS = Metric("cloudai_epoch_duration_seconds", "gauge", "how long the latest epoch took")
EPOCH_BEST_FITNESS = Metric(
    "cloudai_epoch_best_fitness", "gauge", "best fitness that the latest epoch's search found; absent without one"
)
EPOCH_TRAINING_SAMPLES = Metric(
    "cloudai_epoch_training_samples",
    "gauge",
    "completions of the type that the latest epoch learned from",
    ("task_type",),
)

# The history
EVENTS_UNRECORDED = Metric(
    "cloudai_events_unrecorded", "gauge", "events in Redis that the history in MongoDB does not have yet"
)
EVENTS_RECORDED = Metric("cloudai_events_recorded", "counter", "events that the history has recorded")
EVENTS_LOST = Metric(
    "cloudai_events_lost", "counter", "events that Redis had to drop before they were recorded (limits.events_maxlen)"
)

#: All of them, in the order of the page docs/metrics.md.
METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
