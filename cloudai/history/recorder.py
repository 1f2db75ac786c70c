"""The recorder: from the event stream in Redis to the history, in bulk, and trimmed behind it.

Its position is in Redis beside the stream, so that a Redis which lost its last second lost the position of it too. The
same events may be recorded by several recorders, or again after an error: documents keep what is newest in the stream
(documents.py), and only one recorder moves the position on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cloudai.deployment import Deployment
from cloudai.history.collections import WORKER_STATS
from cloudai.history.documents import Changes, changes_of, day, sequence
from cloudai.history.errors import HistoryError
from cloudai.history.store import HistoryStore
from cloudai.history.worker_window import SAMPLE_BUCKET_S
from cloudai.state.events import FILLING, Unrecorded

logger = logging.getLogger(__name__)

#: Events that one batch reads.
BATCH = 5000
#: A call stops after the batch in which it has worked so long, seconds; the next call goes on.
CALL_S = 5.0
#: Between two attempts to reach a history that was away, seconds.
RETRY_S = 10.0
#: Between two samples of the nodes' clocks, and between two looks for what is too old, seconds.
SAMPLE_S = 10.0
PRUNE_S = 600.0


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
    #: Events and documents that can never be recorded: how many, by reason.
    skipped: Mapping[str, int] = field(default_factory=dict)
    #: Why nothing (more) could be recorded, for the operator; "": all is well.
    problem: str = ""


class Recorder:
    """Records one deployment. Keep one per process; any number of processes may run one at the same time."""

    def __init__(self, deployment: Deployment, store: HistoryStore, *, retry_s: float = RETRY_S) -> None:
        self._deployment = deployment
        self._store = store
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._problem = ""
        self._away_since: datetime | None = None
        #: What was told of the stream's room since the history went away.
        self._told_filling = self._told_dropping = False
        self._retry_at = self._sampled = self._pruned = float("-inf")
        #: The last heartbeat that was sampled of each node.
        self._heard: dict[str, float] = {}

    def record_once(self) -> Recorded:
        """Record what is in the stream, in bounded batches, and sample the fleet. Cheap where nothing happened.

        A history that cannot be written is told once, in the log, and by `problem` until it is back; the events stay in
        the stream, and a later call records them. Raises RedisError.
        """
        with self._lock:
            if time.monotonic() < self._retry_at:
                stream = self._deployment.events.unrecorded(0)
                self._tell_room(stream)
                return Recorded(behind=stream.waiting, problem=self._problem)
            return self._record()

    def _record(self) -> Recorded:
        ends_at = time.monotonic() + CALL_S
        events = results = lost = 0
        skipped: Counter[str] = Counter()
        while True:
            batch = self._deployment.events.unrecorded(BATCH)
            changes = changes_of(batch.events)
            try:
                self._sample(changes)
                refused = self._store.write(changes) if changes.documents else Counter[str]()
                self._prune(batch.now)
                if self._away_since is not None and not changes.documents:
                    self._store.ping()
            except HistoryError as error:
                self._is_away(error, batch)
                return Recorded(events, results, batch.waiting, lost, dict(skipped), self._problem)
            self._is_back(batch)
            # Somebody else may have moved on with the same events: then they have said what there is to say.
            if batch.events and self._deployment.events.recorded(batch):
                events += len(batch.events)
                results += changes.results
                lost += self._told_lost(batch)
                skipped += self._told_skipped(changes.skipped + refused)
            if len(batch.events) < BATCH:
                return Recorded(events, results, 0, lost, dict(skipped), self._problem)
            if time.monotonic() >= ends_at:
                behind = batch.waiting - len(batch.events)
                return Recorded(events, results, behind, lost, dict(skipped), self._problem)

    def _sample(self, changes: Changes) -> None:
        """Add the nodes' clocks, now and then."""
        now = time.monotonic()
        if now - self._sampled < SAMPLE_S:
            return
        heard = self._deployment.fleet.heard()
        self._heard = {node.name: self._heard.get(node.name, 0.0) for node in heard}
        for node in heard:
            if node.heartbeat == self._heard[node.name] or "overload_s" not in node.usage:
                continue
            changes.set(
                WORKER_STATS,
                f"{node.name}/{node.incarnation}/{int(node.heartbeat // SAMPLE_BUCKET_S)}",
                {
                    "worker_id": node.name,
                    "incarnation": node.incarnation,
                    "registered_at": node.registered,
                    "time": node.heartbeat,
                    "overload_s": node.usage["overload_s"],
                    "overload_excess_s": node.usage.get("overload_excess_s", 0.0),
                    "seq": sequence(f"{round(node.heartbeat * 1000)}-0"),
                    "at": day(node.heartbeat),
                },
            )
            self._heard[node.name] = node.heartbeat
        self._sampled = now

    def _prune(self, now: float) -> None:
        if time.monotonic() - self._pruned < PRUNE_S:
            return
        dropped = sum(self._store.prune(now).values())
        self._pruned = time.monotonic()
        if dropped:
            logger.info(
                "history-pruned documents=%d: older than %g days (optimiser.history_days)",
                dropped, self._store.retention_days,
            )  # fmt: skip

    def _is_away(self, error: HistoryError, batch: Unrecorded) -> None:
        self._retry_at = time.monotonic() + self._retry_s
        # What was sampled was not written.
        self._sampled = float("-inf")
        self._heard.clear()
        self._problem = str(error)
        if self._away_since is None:
            self._away_since = datetime.fromtimestamp(batch.now, UTC)
            logger.error(
                "history-away events=%d: they wait in Redis, up to %d (limits.events_maxlen), and are recorded when it "
                "is back. %s", batch.waiting, self._deployment.settings.limits.events_maxlen, error,
            )  # fmt: skip
        self._tell_room(batch)

    def _tell_room(self, stream: Unrecorded) -> None:
        """While the history is away: that the stream is half full, and that it is full. Each is told once."""
        most = self._deployment.settings.limits.events_maxlen
        if stream.dropped and not self._told_dropping:
            self._told_filling = self._told_dropping = True
            logger.error(
                "events-dropping count=%d: %d wait, as many as Redis may hold (limits.events_maxlen), so the oldest "
                "are dropped and the history will lack them. Bring MongoDB back, or raise the limit where Redis has "
                "the memory. Scheduling is not affected", stream.dropped, stream.waiting,
            )  # fmt: skip
        elif stream.waiting >= FILLING * most and not self._told_filling:
            self._told_filling = True
            logger.error(
                "events-filling count=%d: at %d (limits.events_maxlen) Redis drops the oldest: bring MongoDB back",
                stream.waiting, most,
            )  # fmt: skip

    def _is_back(self, batch: Unrecorded) -> None:
        if self._away_since is not None:
            away_s = batch.now - self._away_since.timestamp()
            logger.warning("history-back after=%.0fs events=%d: they are recorded now", away_s, batch.waiting)
            self._away_since = None
            self._told_filling = self._told_dropping = False
            self._problem = ""

    def _told_lost(self, batch: Unrecorded) -> int:
        if batch.dropped:
            logger.error(
                "events-lost count=%d: the stream was full (limits.events_maxlen) or nobody recorded it; the history "
                "lacks them. Scheduling is not affected", batch.dropped,
            )  # fmt: skip
        return batch.dropped

    def _told_skipped(self, skipped: Counter[str]) -> Counter[str]:
        for reason, count in skipped.items():
            logger.error("events-skipped count=%d: the history lacks them. %s", count, reason)
        return skipped
