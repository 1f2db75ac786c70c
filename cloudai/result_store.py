"""Celery's Redis result backends, for a server whose memory is full: what ran is stored, and chords are counted.

Stock Celery loses a result that the server refuses, and its caller waits for ever.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from celery.backends.redis import RedisBackend, SentinelBackend
from redis.exceptions import OutOfMemoryError, ResponseError

from cloudai.state.full_memory import although_full

_ALLOWED = "#!lua flags=allow-oom\n"


class _Mixin:
    client: Any
    expires: Any

    def _set(self, key: str, value: Any, expires: Any = None) -> None:
        try:
            super()._set(key, value, expires)  # type: ignore[misc]
        except OutOfMemoryError:
            lasts = expires or self.expires
            although_full(self.client, *(("SETEX", key, int(lasts), value) if lasts else ("SET", key, value)))
            self.client.publish(key, value)

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
