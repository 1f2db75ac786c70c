"""The recorder: from the event stream in Redis to the history, in bulk, and trimmed behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudai.deployment import Deployment
from cloudai.history.store import HistoryStore


@dataclass(frozen=True, slots=True)
class Recorded:
    """What one call of `record_once` did."""

    #: Events that were read and are in the history now.
    events: int = 0
    #: Attempts that have ended, of these.
    results: int = 0
    #: Events in the stream that are not recorded yet.
    behind: int = 0
    #: Events that the stream had dropped (limits.events_maxlen) before they could be recorded.
    lost: int = 0
    #: Events that could not be read: how many, by reason.
    skipped: Mapping[str, int] = field(default_factory=dict)
    #: Why nothing (more) could be recorded, for the operator; "": all is well.
    problem: str = ""


class Recorder:
    """Records one deployment. Keep one per process; any number of processes may run one at the same time."""

    def __init__(self, deployment: Deployment, store: HistoryStore) -> None:
        self._deployment = deployment
        self._store = store

    def record_once(self) -> Recorded:
        """Record what is in the stream, in bounded batches, and sample the fleet. Cheap where nothing happened.

        A history that cannot be written is told once, in the log and by `problem`; nothing is lost, and the next
        call tries again. Raises RedisError.
        """
        raise NotImplementedError
