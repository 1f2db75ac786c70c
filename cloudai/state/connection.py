"""The client of the state's Redis, from the URL of its server or of the Sentinels that watch it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from cloudai.state.refused_writes import SentinelConnection

#: Port of a Sentinel whose URL names none.
_SENTINEL_PORT = 26379
#: How every connection of ours behaves: seconds. As many as there are threads (link.py); redis-py's own limit is 100.
_OPTIONS: dict[str, Any] = {
    "socket_keepalive": True, "socket_connect_timeout": 5, "socket_timeout": 30, "max_connections": 1 << 20,
}  # fmt: skip


def is_sentinel(url: str) -> bool:
    """Whether a URL names Sentinels: sentinel://host:26379/0, several of them apart by semicolons."""
    return url.startswith("sentinel://")


def connect(url: str, master: str = "", sentinel_options: Mapping[str, Any] | None = None) -> redis.Redis:
    """A client of the server, or of the master that Sentinels name at each connection; nothing is sent yet.

    Args:
        url: redis://, rediss:// or sentinel://; user, password and database are the server's.
        master: name of the master, for Sentinels.
        sentinel_options: for the connections to the Sentinels themselves, such as their password.
    """
    if not is_sentinel(url):
        return redis.Redis.from_url(url, **_OPTIONS)
    parts = [urlsplit(one.strip()) for one in url.split(";") if one.strip()]
    own = next((part for part in parts if part.password), parts[0])
    database = next((part.path.strip("/") for part in parts if part.path.strip("/")), "0")
    # Who asks a Sentinel that is gone must soon ask the next one.
    soon = {"socket_connect_timeout": 1.0, "socket_timeout": 5.0, "retry": Retry(NoBackoff(), 0)}
    asked = {**soon, **(sentinel_options or {})}
    sentinel = Sentinel(
        [(part.hostname or "localhost", part.port or _SENTINEL_PORT) for part in parts], sentinel_kwargs=asked
    )
    client: redis.Redis = sentinel.master_for(
        master,
        connection_class=SentinelConnection,
        db=int(database),
        username=unquote(own.username) if own.username else None,
        password=unquote(own.password) if own.password else None,
        **_OPTIONS,
    )
    return client
