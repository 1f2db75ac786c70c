"""Writes that a full Redis must take all the same: they end accepted work, or go on with it.

Redis refuses every command that may need memory once it has reached maxmemory, but not a script that says that it may
(`allow-oom`). What is written so is bounded by what was accepted before.
"""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.exceptions import OutOfMemoryError

#: Runs the command in its arguments.
ANY_COMMAND = "#!lua flags=allow-oom\nreturn redis.call(unpack(ARGV))"


def although_full(client: Redis, *command: str | bytes | int | float) -> Any:
    """Run a write; when the server's memory is full, run it nevertheless. Raises what the command raises."""
    try:
        return client.execute_command(*command)
    except OutOfMemoryError:
        return client.eval(ANY_COMMAND, 0, *command)
