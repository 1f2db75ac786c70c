"""A server that answers and takes no writes is as good as away: demoted, without its replicas, or with a full disk.

redis-py gives a node's worker an answer that it cannot handle, and the worker ends; and whoever keeps a connection to a
demoted master is refused there until somebody closes it. So it is closed, and behind Sentinel the next one goes to
the master of that moment.
"""

from __future__ import annotations

from typing import Any

from redis.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

#: Beside READONLY, for which redis-py has a class.
_REFUSALS = ("NOREPLICAS", "MISCONF")


class _Mixin:
    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]
        except ResponseError as error:
            if not isinstance(error, ReadOnlyError) and not str(error).startswith(_REFUSALS):
                raise
            self.disconnect()  # type: ignore[attr-defined]
            raise RedisConnectionError(f"the server takes no writes: {error}") from error


class PlainConnection(_Mixin, Connection):
    """To a server by its address."""


class TLSConnection(_Mixin, SSLConnection):
    """The same by TLS."""


class SentinelConnection(_Mixin, SentinelManagedConnection):
    """To the master that Sentinels name."""


class SentinelTLSConnection(_Mixin, SentinelManagedSSLConnection):
    """The same by TLS."""
