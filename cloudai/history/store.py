"""The collections of the history: written in bulk and idempotently, read by time (spec sections 7 and 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from cloudai.history.records import PublishedParameters, Reading, TaskHistory, TauSample, WorkerStats
from cloudai.settings import Settings


class HistoryStore:
    """One database. Connects when first used; every method raises HistoryUnavailable within about `timeout_s`."""

    def __init__(self, url: str, database: str, *, retention_days: float = 30.0, timeout_s: float = 5.0) -> None:
        self.url = url
        self.database = database
        self.retention_days = retention_days
        self.timeout_s = timeout_s

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The store of a deployment's settings."""
        return cls(settings.optimiser.mongo_url, settings.optimiser.database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the store may be used again."""
        raise NotImplementedError

    def ping(self) -> None:
        """Ask the server whether it is there."""
        raise NotImplementedError

    def task_history(self, since: float, until: float, limit: int) -> Reading[TaskHistory]:
        """Attempts that ended from `since` to before `until` (epoch s), newest first, at most `limit`.

        Where there are more, every (type, node) pair gets an equal share as far as it has records, newest first.
        """
        raise NotImplementedError

    def worker_stats(self, since: float, until: float) -> Reading[WorkerStats]:
        """What each node did from `since` to before `until` (epoch s), by name."""
        raise NotImplementedError

    def append_epoch(self, document: Mapping[str, Any]) -> str:
        """Keep an epoch's document, which has `at` (epoch s); returns its id. NaN and infinities become None."""
        raise NotImplementedError

    def epochs(self, limit: int = 20) -> list[dict[str, Any]]:
        """Documents of the latest epochs, newest first."""
        raise NotImplementedError

    def append_parameters(self, version: int, json: str, source: str, at: float) -> None:
        """Keep parameters that were put in force at `at` (epoch s). Idempotent on (version, at)."""
        raise NotImplementedError

    def parameters(self, limit: int = 20) -> list[PublishedParameters]:
        """Parameters that were in force, newest first."""
        raise NotImplementedError

    def tau_history(
        self, since: float, until: float, *, task_types: Sequence[str] = (), limit: int = 10_000
    ) -> list[TauSample]:
        """Tau over time, oldest first: the last value of every ten seconds in which it changed; the newest `limit`."""
        raise NotImplementedError
