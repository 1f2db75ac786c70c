"""The metrics of a deployment as Prometheus reads them: everything is read from Redis when it is asked for."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from cloudai import metrics
from cloudai.cli.fleet_report import node_reports
from cloudai.deployment import Deployment
from cloudai.metrics import Metric
from cloudai.scheduling.errors import InvalidParameters
from cloudai.scheduling.parameters import GAParams
from cloudai.state.decision_times import BUCKETS

logger = logging.getLogger(__name__)

_MICRO = 1e-6
#: Keys of a node's report, by the label that they have.
_RESOURCES = {"cpu": "cpu", "memory": "memory_gib", "gpu": "gpu", "storage": "storage_gib", "slots": "slots"}
_FEATURES = {"cpu": "theta1", "memory": "theta2", "gpu": "theta3", "load": "theta4"}


class StateCollector(Collector):
    """Reads one deployment at each scrape. While Redis is away, cloudai_up is 0 and stands alone.

    Args:
        deployment: which one.
        unavailable: is told why the state could not be read; without it that is logged.

    """

    def __init__(self, deployment: Deployment, unavailable: Callable[[RedisError], None] | None = None) -> None:
        self._deployment = deployment
        self._unavailable = unavailable or _log_unavailable

    def collect(self) -> Iterator[Family]:
        """All families."""
        try:
            families = [*self._read()]
        except RedisError as error:
            self._unavailable(error)
            yield _gauge(metrics.UP, 0.0)
            return
        yield _gauge(metrics.UP, 1.0)
        yield from families

    def _read(self) -> Iterator[Family]:
        totals = self._deployment.ledger.totals()
        by_node = self._deployment.ledger.node_totals()
        yield from _decisions(totals, by_node)
        yield from _tasks(totals, by_node)
        yield from self._nodes()
        yield from self._runtimes(totals)
        yield from self._parameters()
        yield from self._epochs(totals)
        yield from self._history()

    def _nodes(self) -> Iterator[Family]:
        nodes = node_reports(self._deployment)
        yield _family(metrics.WORKERS, {(state,): n for state, n in Counter(node["state"] for node in nodes).items()})
        loads = {(node["name"],): node["load"] for node in nodes if node["load"] is not None}
        yield _family(metrics.WORKER_LOAD, loads)
        yield _family(metrics.TASKS_ON_WORKER, {(node["name"],): len(node["tasks"]) for node in nodes})
        capacity: dict[tuple[str, ...], float] = {}
        reserved: dict[tuple[str, ...], float] = {}
        for node in nodes:
            for label, key in _RESOURCES.items():
                capacity[node["name"], label] = node[key]["capacity"]
                reserved[node["name"], label] = node[key]["capacity"] - node[key]["free"]
        yield _family(metrics.WORKER_CAPACITY, capacity)
        yield _family(metrics.WORKER_RESERVED, reserved)

    def _runtimes(self, totals: Mapping[str, int]) -> Iterator[Family]:
        learned = self._deployment.tau.learned()
        yield _family(metrics.TAU_SECONDS, {(kind,): known.tau for kind, known in learned.items()})
        yield _family(metrics.TAU_SIGMA_SECONDS, {(kind,): known.sigma for kind, known in learned.items()})
        yield _family(metrics.TAU_SAMPLES, {(kind,): known.samples for kind, known in learned.items()})
        rejected = {("outlier",): totals.get("tau_outliers", 0), ("refused",): totals.get("tau_samples_refused", 0)}
        yield _family(metrics.TAU_REJECTED, rejected)
        error = SummaryMetricFamily(
            metrics.PREDICTION_ERROR_SECONDS.name, metrics.PREDICTION_ERROR_SECONDS.meaning, labels=("task_type",)
        )
        errors = _named(totals, "prediction_error_us:")
        for kind, count in _named(totals, "predictions:").items():
            error.add_metric((kind,), count, errors.get(kind, 0) * _MICRO)
        yield error
        runtimes = {(kind,): us * _MICRO for kind, us in _named(totals, "runtime_us:").items()}
        yield _family(metrics.PREDICTED_RUNTIME_SECONDS, runtimes)

    def _parameters(self) -> Iterator[Family]:
        try:
            published = self._deployment.parameters.read()
        except InvalidParameters as error:
            logger.warning("parameters-refused: what is in Redis cannot be read (%s)", error)
            return
        in_force = GAParams() if published is None else published.parameters
        yield _gauge(metrics.PARAMETERS_VERSION, in_force.version)
        yield _family(metrics.THETA, {(label,): getattr(in_force, name) for label, name in _FEATURES.items()})
        yield _gauge(metrics.AFFINITY_ENTRIES, sum(map(len, in_force.affinity.values())))
        yield _gauge(metrics.PENALTY_ENTRIES, len(in_force.penalty))
        yield _gauge(metrics.SPEED_ENTRIES, sum(map(len, in_force.speed.values())))
        yield _family(metrics.WORKER_PENALTY, {(node,): value for node, value in in_force.penalty.items()})

    def _epochs(self, totals: Mapping[str, int]) -> Iterator[Family]:
        yield _family(metrics.EPOCHS, {(outcome,): n for outcome, n in _named(totals, "epochs:").items()})
        report = next(iter(self._deployment.epochs.latest(1)), None)
        if report is None:
            return
        for metric, value in (
            (metrics.EPOCH_TIMESTAMP_SECONDS, _number(report.get("at"))),
            (metrics.EPOCH_DURATION_SECONDS, _number(report.get("took_s"))),
            (metrics.EPOCH_BEST_FITNESS, _best_fitness(report.get("search"))),
        ):
            if value is not None:
                yield _gauge(metric, value)
        samples = report.get("samples")
        if isinstance(samples, dict):
            numbers = {(str(kind),): _number(count) for kind, count in samples.items()}
            yield _family(metrics.EPOCH_TRAINING_SAMPLES, {k: n for k, n in numbers.items() if n is not None})

    def _history(self) -> Iterator[Family]:
        progress = self._deployment.events.progress()
        yield _gauge(metrics.EVENTS_UNRECORDED, progress.waiting)
        yield _family(metrics.EVENTS_RECORDED, {(): progress.recorded})
        yield _family(metrics.EVENTS_LOST, {(): progress.lost})


def _log_unavailable(error: RedisError) -> None:
    logger.warning("metrics-unavailable: Redis does not answer (%s)", error)


def _decisions(totals: Mapping[str, int], by_node: Mapping[str, Mapping[str, int]]) -> Iterator[Family]:
    counts = [totals.get(f"decisions:{bucket}", 0) for bucket in BUCKETS]
    bounds = ["+Inf" if bucket == "inf" else repr(int(bucket) / 1e6) for bucket in BUCKETS]
    yield HistogramMetricFamily(
        metrics.DECISION_SECONDS.name,
        metrics.DECISION_SECONDS.meaning,
        buckets=list(zip(bounds, accumulate(counts), strict=True)),
        sum_value=totals.get("decision_us", 0) * _MICRO,
    )
    yield _family(metrics.PLACEMENTS, {(): totals.get("placements", 0)})
    yield _family(metrics.FALLBACKS, {(reason,): n for reason, n in _named(totals, "fallback:").items()})
    yield _family(metrics.WORKER_PLACEMENTS, {(node,): n for node, n in by_node.get("placements", {}).items()})


def _tasks(totals: Mapping[str, int], by_node: Mapping[str, Mapping[str, int]]) -> Iterator[Family]:
    yield _gauge(metrics.TASKS_IN_FLIGHT, totals["live"])
    yield _gauge(metrics.TASKS_WAITING, totals["waiting"])
    yield _gauge(metrics.TASKS_DELAYED, totals["delayed"])
    yield _family(metrics.ATTEMPTS_ENDED, {(outcome,): n for outcome, n in _named(totals, "finished_").items()})
    yield _family(metrics.ATTEMPTS_LOST, {(): totals.get("attempts_lost", 0)})
    yield _family(metrics.SLA_VIOLATIONS, {(node,): n for node, n in by_node.get("sla_violations", {}).items()})
    yield _family(metrics.DEAD_LETTERS, {(): totals.get("dead_letters_total", 0)})
    yield _gauge(metrics.DEAD_LETTERS_KEPT, totals["dead_letters"])


def _named(totals: Mapping[str, int], prefix: str) -> dict[str, int]:
    """The counters whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): n for name, n in sorted(totals.items()) if name.startswith(prefix)}


def _family(metric: Metric, values: Mapping[Any, float]) -> Family:
    """A counter or a gauge with a value for each tuple of labels."""
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _gauge(metric: Metric, value: float) -> Family:
    return _family(metric, {(): value})


def _number(value: Any) -> float | None:
    """A finite number of a report, which another release may have written."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _best_fitness(search: Any) -> float | None:
    curve = search.get("best_fitness") if isinstance(search, dict) else None
    return _number(curve[-1]) if isinstance(curve, list) and curve else None
