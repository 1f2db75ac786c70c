"""A short way to Redis for scripts: one connection a thread, kept, and commands packed here.

redis-py checks a pooled connection out, packs argument by argument, wraps the call in its retry policy and checks the
connection in again; for a script of a tenth of a millisecond that is most of the client's time. Whatever goes wrong on
the short way, the command goes the ordinary way, which reconnects and tries again; every script may be run twice.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError


class _Kept:
    """A connection that one thread has checked out; it goes back to its pool with the thread."""

    def __init__(self, pool: Any) -> None:
        self.pid = os.getpid()
        self._pool = pool
        self.connection: Any = None
        self.connection = pool.get_connection()

    def __del__(self) -> None:
        # After a fork the socket is the parent's: the child must not touch it.
        if self.connection is not None and self.pid == os.getpid():
            self._pool.release(self.connection)


class Link:
    """Runs commands on a connection of the calling thread."""

    def __init__(self, client: Redis) -> None:
        self._client = weakref.ref(client)
        self._pool = client.connection_pool
        self._local = threading.local()

    def call(self, *command: Any) -> Any:
        """Run a command; raises what it raises. A broken connection is tried again the ordinary way."""
        kept = getattr(self._local, "kept", None)
        try:
            if kept is None or kept.pid != os.getpid() or kept.connection._sock is None:
                kept = self._local.kept = _Kept(self._pool)
            connection = kept.connection
            connection.send_packed_command([pack(command)], check_health=False)
            return connection.read_response()
        except (RedisConnectionError, RedisTimeoutError):
            self._local.kept = None
            client = self._client()
            if client is None:
                raise
            return client.execute_command(*command)


_links: weakref.WeakKeyDictionary[Redis, Link] = weakref.WeakKeyDictionary()


def link_of(client: Redis) -> Link:
    """The short way beside a client."""
    link = _links.get(client)
    if link is None:
        link = _links[client] = Link(client)
    return link


def pack(command: tuple[Any, ...]) -> bytes:
    """A command as the Redis protocol writes it; numbers as their shortest text."""
    parts = [b"*%d\r\n" % len(command)]
    for arg in command:
        data = arg if isinstance(arg, bytes) else (arg if isinstance(arg, str) else repr(arg)).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
