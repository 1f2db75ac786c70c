"""The collections of the history: written in bulk and idempotently, read by time (spec sections 7 and 8).

Plain finds and bulk writes only, so that every server that speaks MongoDB's protocol will do.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

from pymongo import UpdateOne

from cloudai.history.collections import (
    ASSIGNMENTS,
    GA_EPOCHS,
    PARAMETERS,
    RESULTS,
    TASKS,
    TAU_HISTORY,
    WORKER_REGISTRY,
    WORKER_STATS,
)
from cloudai.history.connection import Connection, Document
from cloudai.history.documents import Changes, day
from cloudai.history.reading import read_all, read_parameters, read_task, read_tau, required, stratified
from cloudai.history.records import PublishedParameters, Reading, TaskHistory, TauSample, WorkerStats
from cloudai.history.retention import make_indexes, prune
from cloudai.history.worker_window import RESULT_FIELDS, SAMPLE_BUCKET_S, workers_over_window
from cloudai.history.writing import write_all
from cloudai.scheduling.task_types import TASK_TYPES
from cloudai.settings import Settings

logger = logging.getLogger(__name__)

#: Attempts that worker_stats sums up at most; with more in the window it looks at the newest part of it.
STATS_RECORDS = 100_000

T = TypeVar("T")

_TYPES = [str(kind) for kind in TASK_TYPES]


class HistoryStore:
    """One database. Connects when first used; a server that cannot be reached is told within about `timeout_s`.

    Every method raises HistoryUnavailable or another HistoryError, those that write HistoryReadOnly too.
    """

    def __init__(self, url: str, database: str, *, retention_days: float = 30.0, timeout_s: float = 3.0) -> None:
        self.retention_days = retention_days
        self._connection = Connection(url, database, timeout_s=timeout_s)
        self._prepared = False

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The store of a deployment's settings."""
        optimiser = settings.optimiser
        return cls(optimiser.mongo_url, optimiser.database, retention_days=optimiser.history_days)

    @property
    def where(self) -> str:
        """Server and database, for messages; without a password."""
        return self._connection.where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the store may be used again."""
        self._connection.close()

    def ping(self) -> None:
        """Ask the server whether it is there."""
        with self._connection.database("a ping") as database:
            database.command("ping")

    # --- writing

    def prepare(self) -> None:
        """Make the indexes, and let the server expire what is older than the retention, if it can."""
        with self._connection.database("to make indexes", writing=True) as database:
            make_indexes(database, self.retention_days)
        self._prepared = True

    def write(self, changes: Changes) -> Counter[str]:
        """Write what a batch of events does; returns the documents that the server would never take, by reason.

        A document changes only if what it holds is older in the stream. All or nothing is not promised: after an
        error the same batch is written again.
        """
        if not self._prepared:
            self.prepare()
        with self._connection.database("to record", writing=True) as database:
            return write_all(database, changes.documents)

    def append_epoch(self, document: Mapping[str, Any]) -> str:
        """Keep an epoch's document, which has `at` (epoch s); returns its id. NaN and infinities become None.

        With an `_id` of the caller's it is idempotent.
        """
        at = float(document["at"])
        plain = _plain({**document, "time": at})
        plain["at"] = day(at)
        with self._connection.database("to keep an epoch", writing=True) as database:
            if "_id" not in plain:
                return str(database[GA_EPOCHS].insert_one(plain).inserted_id)
            database[GA_EPOCHS].replace_one({"_id": plain["_id"]}, plain, upsert=True)
        return str(plain["_id"])

    def prune(self, now: float) -> dict[str, int]:
        """Drop what is older than the retention at `now` (epoch s); returns how much was dropped, by collection."""
        with self._connection.database("to drop old records", writing=True) as database:
            return prune(database, now, self.retention_days)

    # --- reading

    def task_history(self, since: float, until: float, limit: int) -> Reading[TaskHistory]:
        """Attempts that ended from `since` to before `until` (epoch s), newest first, at most `limit`.

        Where there are more, every (type, node) pair gets an equal share as far as it has records, newest first; of
        each type the newest `limit` are looked at for that.
        """
        skipped: Counter[str] = Counter()
        window: Document = {"actual_finish": {"$gte": since, "$lt": until}}
        with self._connection.database("to read the history") as database:
            results = database[RESULTS]

            def newest(query: Document, count: int) -> list[TaskHistory]:
                found = results.find(query).sort("actual_finish", -1).limit(count)
                return read_all(found, read_task, skipped)

            records = newest(window, limit + 1)
            if len(records) + skipped.total() <= limit:
                return Reading(tuple(records), dict(skipped))
            skipped.clear()
            records = []
            for kind in _TYPES:
                records += newest({**window, "task_type": kind}, limit)
            # Old labels, and documents without one, count under what they are read as.
            records += newest({**window, "task_type": {"$nin": _TYPES}}, limit)
        return Reading(tuple(stratified(records, limit)), dict(skipped), capped=True)

    def worker_stats(self, since: float, until: float) -> Reading[WorkerStats]:
        """What each node did from `since` to before `until` (epoch s), by name.

        With more than STATS_RECORDS attempts in it, only the newest part of the window is looked at, for clocks and
        attempts alike (`capped`).
        """
        skipped: Counter[str] = Counter()
        with self._connection.database("to read the history") as database:
            results = list(
                database[RESULTS]
                .find(
                    {"actual_finish": {"$gte": since, "$lt": until}, "worker_id": {"$ne": ""}},
                    dict.fromkeys(RESULT_FIELDS, 1),
                )
                .sort("actual_finish", -1)
                .limit(STATS_RECORDS + 1)
            )
            capped = len(results) > STATS_RECORDS
            if capped:
                since = required(results.pop(), "actual_finish")
            reach = {"$gte": since - SAMPLE_BUCKET_S, "$lt": until + SAMPLE_BUCKET_S}
            samples = list(database[WORKER_STATS].find({"time": reach}))
            registry = list(database[WORKER_REGISTRY].find())
        records = workers_over_window(results, samples, registry, since, until, skipped)
        return Reading(tuple(records), dict(skipped), capped)

    def epochs(self, limit: int = 20) -> list[dict[str, Any]]:
        """Documents of the latest epochs, newest first; `at` is epoch seconds again."""
        with self._connection.database("to read the epochs") as database:
            found = list(database[GA_EPOCHS].find({"time": {"$gte": 0}}).sort("time", -1).limit(limit))
        for document in found:
            document.update(_id=str(document["_id"]), at=document.pop("time"))
        return found

    def parameters(self, limit: int = 20) -> list[PublishedParameters]:
        """Parameters that were put in force, newest first."""
        with self._connection.database("to read the parameters' history") as database:
            query: Document = {"published_at": {"$gte": 0}}
            found = list(database[PARAMETERS].find(query).sort("published_at", -1).limit(limit))
        return self._readable(PARAMETERS, found, read_parameters)

    def tau_history(
        self, since: float, until: float, *, task_types: Sequence[str] = (), limit: int = 10_000
    ) -> list[TauSample]:
        """Tau over time, oldest first: the last value of every ten seconds in which it changed; the newest `limit`."""
        query: Document = {"time": {"$gte": since, "$lt": until}}
        if task_types:
            query["task_type"] = {"$in": list(task_types)}
        with self._connection.database("to read tau's history") as database:
            found = list(database[TAU_HISTORY].find(query).sort("time", -1).limit(limit))
        return self._readable(TAU_HISTORY, reversed(found), read_tau)

    # --- migration

    def each_document(self, collection: str, *names: str) -> Iterator[Document]:
        """Every document of a collection, with these fields of it."""
        with self._connection.database("to read the history") as database:
            yield from database[collection].find({}, dict.fromkeys(names, 1))

    def set_task_types(self, collection: str, types: Mapping[Any, str]) -> None:
        """Set the type of documents, by id."""
        operations = [UpdateOne({"_id": i}, {"$set": {"task_type": kind}}) for i, kind in types.items()]
        with self._connection.database("to set task types", writing=True) as database:
            database[collection].bulk_write(operations, ordered=False)

    def task(self, task_id: str) -> Document | None:
        """The document of a task, with its attempts under `assignments` and `results`; None if there is none.

        TypeError on anything but text: an object in a query would be an operator.
        """
        if not isinstance(task_id, str):
            raise TypeError(f"task_id: given {type(task_id).__name__}, allowed: text")
        with self._connection.database("to read a task") as database:
            found = database[TASKS].find_one({"_id": task_id})
            if found is None:
                return None
            # Their ids begin with the task's and a slash; "0" is the next character behind it.
            attempts: Document = {"_id": {"$gte": f"{task_id}/", "$lt": f"{task_id}0"}, "task_id": task_id}
            for key, collection in (("assignments", ASSIGNMENTS), ("results", RESULTS)):
                found[key] = list(database[collection].find(attempts).sort("attempt", 1))
        return found

    def _readable(self, collection: str, found: Iterable[Document], read: Callable[[Mapping[str, Any]], T]) -> list[T]:
        skipped: Counter[str] = Counter()
        records = read_all(found, read, skipped)
        for reason, count in skipped.items():
            logger.warning("history-unreadable collection=%s documents=%d: %s", collection, count, reason)
        return records


def _plain(value: Any) -> Any:
    """A value as MongoDB takes it: mappings and lists, and None for a number that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
