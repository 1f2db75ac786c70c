"""Celery's Redis result backends, so that what ran is stored and reaches who waits for it.

On a server whose memory is full stock Celery loses a result that is refused, and its caller waits for ever. Nothing is
tried again until there is room: scripts that may exceed maxmemory store it at once, as much as was accepted before.

A result is announced once. Stock Celery's caller misses what was announced while its connection was down and is not
told of it when Redis is back: here it looks for itself from time to time.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any

from celery.backends.redis import RedisBackend, SentinelBackend
from celery.backends.redis import ResultConsumer as RedisConsumer
from celery.states import READY_STATES
from redis.exceptions import OutOfMemoryError, ResponseError

from cloudai.state.full_memory import although_full
from cloudai.state.refused_writes import SentinelConnection, SentinelTLSConnection

_ALLOWED = "#!lua flags=allow-oom\n"


#: A caller that waits looks for its results after so long, seconds; more rarely where a look takes longer than a
#: hundredth of it.
LOOK_EVERY_S = 5.0
#: Results that are looked for in one round trip.
_LOOKED_FOR_TOGETHER = 1000


class ResultConsumer(RedisConsumer):
    """Waits for results as Celery's does, and looks for them now and then."""

    _look_at = 0.0

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for an announcement, at most so long (seconds)."""
        super().drain_events(timeout)
        now = time.monotonic()
        if not self._look_at:
            self._look_at = now + LOOK_EVERY_S
        if now >= self._look_at:
            with self.reconnect_on_error():
                self._look()
            done = time.monotonic()
            self._look_at = done + max(LOOK_EVERY_S, 100 * (done - now))

    def _reconnect_pubsub(self) -> None:
        # Celery drops its connections here and leaves closing them to the garbage collector.
        with self._locked():
            if self._pubsub is not None:
                self._pubsub.close()
            self.backend.client.connection_pool.disconnect(inuse_connections=False)
        super()._reconnect_pubsub()

    def _look(self) -> None:
        with self._locked():
            keys = list(self.subscribed_to)
            for first in range(0, len(keys), _LOOKED_FOR_TOGETHER):
                for stored in self.backend.client.mget(keys[first : first + _LOOKED_FOR_TOGETHER]):
                    meta = self._decode_result(stored) if stored else None
                    if meta and meta["status"] in READY_STATES:
                        self.on_state_change(meta, None)


class _Mixin:
    ResultConsumer = ResultConsumer
    app: Any
    client: Any
    expires: Any
    chord_expires: Any
    get_key_for_group: Any

    def _set(self, key: str, value: Any, expires: Any = None) -> None:
        try:
            super()._set(key, value, expires)  # type: ignore[misc]
        except OutOfMemoryError:
            lasts = expires or self.expires
            although_full(self.client, *(("SETEX", key, int(lasts), value) if lasts else ("SET", key, value)))
            self.client.publish(key, value)

    def _set_chord_key(self, key: str, value: Any) -> Any:
        try:
            return super()._set_chord_key(key, value)  # type: ignore[misc]
        except OutOfMemoryError:
            # A chord that a running task goes on with was accepted with that task; one from outside is new work.
            if not self.app.runs_claimed():
                raise
            lasts = ("EX", int(self.chord_expires)) if self.chord_expires else ()
            return although_full(self.client, "SET", key, value, *lasts)

    def add_to_chord(self, group_id: str, result: Any) -> None:
        """As Celery's; a running task may do it on a full server."""
        try:
            super().add_to_chord(group_id, result)  # type: ignore[misc]
        except OutOfMemoryError:
            if not self.app.runs_claimed():
                raise
            although_full(self.client, "INCR", self.get_key_for_group(group_id, ".t"))

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        # A server that cannot write to its disk refuses all writes until it can.
        refused = isinstance(exc, ResponseError) and str(exc).startswith("MISCONF")
        return refused or bool(super().exception_safe_to_retry(exc))  # type: ignore[misc]

    @cached_property
    def _chord_part_return_script(self) -> Any:
        return self._allowed(super()._chord_part_return_script)  # type: ignore[misc]

    @cached_property
    def _chord_claim_extend_script(self) -> Any:
        return self._allowed(super()._chord_claim_extend_script)  # type: ignore[misc]

    @cached_property
    def _chord_cleanup_script(self) -> Any:
        return self._allowed(super()._chord_cleanup_script)  # type: ignore[misc]

    def _allowed(self, script: Any) -> Any:
        text = script.script
        return self.client.register_script(_ALLOWED + (text if isinstance(text, str) else text.decode()))


class ResultStore(_Mixin, RedisBackend):
    """Celery's Redis backend."""


class SentinelResultStore(_Mixin, SentinelBackend):
    """Celery's backend for a Redis behind Sentinel."""

    connection_class_ssl = SentinelTLSConnection

    def _get_sentinel_instance(self, **params: Any) -> Any:
        return super()._get_sentinel_instance(**{"connection_class": SentinelConnection, **params})
