"""The event stream: one entry for each state change, read by the recorder of the history and trimmed behind it.

Fields of `recorder` (hash): position (id of the last recorded entry), recorded and lost (entries, ever), at (epoch s).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis import Redis

from cloudai.names import Keys
from cloudai.state.scripts import Scripts

#: Recorded events that stay in the stream, for `explain` and others that look at the latest.
KEEP_RECORDED = 20_000
#: Share of limits.events_maxlen from which the operator is told that nobody records what waits.
FILLING = 0.5


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """The next events to record."""

    #: Server time, epoch seconds.
    now: float
    #: Id of the last recorded entry; "0" before the first.
    position: str
    #: Entries behind it that the stream has dropped unrecorded (limits.events_maxlen).
    dropped: int
    #: Entries that are not recorded yet, these included.
    waiting: int
    #: Id and fields of each, oldest first.
    events: tuple[tuple[str, dict[str, str]], ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the recorder is."""

    #: Entries that are not recorded yet.
    waiting: int
    #: Entries that were recorded, and that the stream dropped unrecorded, ever.
    recorded: int
    lost: int
    #: Of the lost ones, those that no recorder has come past yet: while there are any, the stream is full.
    dropping: int


class EventStream:
    """Typed access to the recorder's scripts."""

    def __init__(self, client: Redis, keys: Keys, scripts: Scripts) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts

    def unrecorded(self, limit: int) -> Unrecorded:
        """The oldest events that are not recorded, at most `limit`."""
        now, position, dropped, waiting, entries, *_ = self._look(limit)
        events = tuple((entry_id.decode(), _fields(flat)) for entry_id, flat in entries or ())
        return Unrecorded(float(now), position.decode(), int(dropped), int(waiting), events)

    def progress(self) -> Progress:
        """How far the recorder is."""
        _, _, dropped, waiting, _, recorded, lost = self._look(0)
        return Progress(int(waiting), int(recorded), int(lost) + int(dropped), int(dropped))

    def _look(self, limit: int) -> list[Any]:
        found: list[Any] = self._scripts.unrecorded.run(self._client, self._keys.prefix, limit)
        return found

    def recorded(self, batch: Unrecorded, *, keep: int = KEEP_RECORDED) -> bool:
        """The events of a batch are in the history: move on behind them, and trim all but the latest `keep` of those
        that are recorded.

        False: nothing changed, because somebody else has moved on from there.
        """
        return bool(
            self._scripts.recorded.run(
                self._client, self._keys.prefix,
                batch.position, batch.events[-1][0], len(batch.events), batch.dropped, keep,
            )
        )  # fmt: skip


def _fields(flat: list[bytes]) -> dict[str, str]:
    texts = [part.decode(errors="replace") for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
