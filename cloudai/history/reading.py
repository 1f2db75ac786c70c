"""From documents of the history to records. A document may come from an older release or from another program."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from cloudai.history.records import Features, PublishedParameters, TaskHistory, TauSample
from cloudai.history.task_types import normalised_type

R = TypeVar("R")


class Unreadable(ValueError):
    """A document that is no record; the message is the reason, the same for all of its kind."""


def read_all(
    documents: Iterable[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], R], skipped: Counter[str]
) -> list[R]:
    """The records of these documents; those that cannot be read are counted by reason in `skipped`."""
    records = []
    for document in documents:
        try:
            records.append(read(document))
        except Unreadable as reason:
            skipped[str(reason)] += 1
    return records


def read_task(document: Mapping[str, Any]) -> TaskHistory:
    """One document of RESULTS. Raises Unreadable."""
    cpu, memory, gpu, storage = (amount(document, name) for name in ("cpu", "memory", "gpu", "storage"))
    return TaskHistory(
        task_id=_text(document, "task_id"),
        attempt=_whole(document, "attempt"),
        worker_id=_text(document, "worker_id", empty=True),
        task_type=normalised_type(
            document.get("task_type", document.get("type")), cpu=cpu, memory=memory, gpu=gpu
        ),
        outcome=_text(document, "outcome"),
        # Records of the time before attempts were told apart are of whole tasks.
        final=_truth(document, "final", default=True),
        arrival_time=required(document, "arrival_time"),
        deadline=required(document, "deadline"),
        actual_start=optional(document, "actual_start"),
        actual_finish=required(document, "actual_finish"),
        actual_runtime=optional(document, "actual_runtime"),
        sla_success=_truth(document, "sla_success"),
        cpu_used=_used(document, "cpu_used"),
        mem_used=_used(document, "mem_used"),
        gpu_used=_used(document, "gpu_used"),
        cpu=cpu,
        memory=memory,
        gpu=gpu,
        storage=storage,
        load_at_start=optional(document, "load_at_start"),
        overload_time=_used(document, "overload_time"),
        tau=optional(document, "tau"),
        predicted_runtime=optional(document, "predicted_runtime"),
        features=_features(document.get("features")),
        parameters_version=_whole(document, "parameters_version", default=0),
        family=_text(document, "family", empty=True, default=""),
    )


def read_tau(document: Mapping[str, Any]) -> TauSample:
    """One document of TAU_HISTORY. Raises Unreadable."""
    return TauSample(
        task_type=_text(document, "task_type"),
        at=required(document, "time"),
        tau=required(document, "tau"),
        runtime=optional(document, "runtime"),
        variance=optional(document, "variance"),
    )


def read_parameters(document: Mapping[str, Any]) -> PublishedParameters:
    """One document of PARAMETERS. Raises Unreadable."""
    return PublishedParameters(
        version=_whole(document, "version"),
        json=_text(document, "json"),
        source=_text(document, "source", empty=True, default=""),
        at=required(document, "published_at"),
    )


def stratified(records: Sequence[TaskHistory], limit: int) -> list[TaskHistory]:
    """At most `limit` of these, newest first: every (type, node) pair gets an equal share as far as it has records."""
    newest_first = sorted(records, key=lambda record: record.actual_finish, reverse=True)
    if len(newest_first) <= limit:
        return newest_first
    strata: dict[tuple[str, str], list[TaskHistory]] = defaultdict(list)
    for record in newest_first:
        strata[record.task_type, record.worker_id].append(record)
    chosen: list[TaskHistory] = []
    # The smallest first: what they leave of their share goes to the larger ones.
    left = sorted(strata.values(), key=lambda stratum: (len(stratum), -stratum[0].actual_finish))
    for index, stratum in enumerate(left):
        share = math.ceil((limit - len(chosen)) / (len(left) - index))
        chosen += stratum[:share]
    return sorted(chosen, key=lambda record: record.actual_finish, reverse=True)


def _value(document: Mapping[str, Any], name: str) -> float | None:
    value = document.get(name)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    # MongoDB may give a 64-bit or decimal number of its own, which are numbers to `float` too.
    if isinstance(value, (bool, str, bytes)):
        raise Unreadable(f"{name} is no number")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise Unreadable(f"{name} is no number") from None
    return number if math.isfinite(number) else None


def optional(document: Mapping[str, Any], name: str) -> float | None:
    """A finite number; None where there is none, or NaN or infinity. Raises Unreadable on anything else."""
    return _value(document, name)


def required(document: Mapping[str, Any], name: str) -> float:
    """A finite number. Raises Unreadable."""
    value = _value(document, name)
    if value is None:
        raise Unreadable(f"{name} is missing or not finite")
    return value


def amount(document: Mapping[str, Any], name: str) -> float:
    """A requested amount: 0 where nothing was asked. Raises Unreadable."""
    value = _value(document, name) or 0.0
    if value < 0:
        raise Unreadable(f"{name} is negative")
    return value


def _used(document: Mapping[str, Any], name: str) -> float | None:
    value = _value(document, name)
    if value is not None and value < 0:
        raise Unreadable(f"{name} is negative")
    return value


def _whole(document: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = _value(document, name)
    if value is None:
        if default is None:
            raise Unreadable(f"{name} is missing or not finite")
        return default
    if value < 0 or value != int(value):
        raise Unreadable(f"{name} is no count")
    return int(value)


def _text(document: Mapping[str, Any], name: str, *, empty: bool = False, default: str | None = None) -> str:
    value = document.get(name, default)
    if not isinstance(value, str) or not (value or empty):
        raise Unreadable(f"{name} is missing or no text")
    return value


def _truth(document: Mapping[str, Any], name: str, *, default: bool | None = None) -> bool:
    value = document.get(name, default)
    if not isinstance(value, bool):
        raise Unreadable(f"{name} is missing or no truth value")
    return value


def _features(given: object) -> Features | None:
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 4:
        raise Unreadable("features are not a list of four")
    numbers = [_value({"a feature": value}, "a feature") for value in given]
    if any(number is None for number in numbers):
        return None
    cpu, memory, gpu, load = (float(number) for number in numbers if number is not None)
    return cpu, memory, gpu, load
