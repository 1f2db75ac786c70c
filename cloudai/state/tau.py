"""Tau, the learned runtime of each task type, in Redis (spec section 2). Finish learns it; here it is read and set."""

from __future__ import annotations

import math
from typing import Any

from redis import Redis

from cloudai.names import Keys
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.task_types import INITIAL_TAU, validate_task_type
from cloudai.state.scripts import Scripts

#: Bounds of tau, seconds (spec section 2).
TAU_MIN_S = 0.001
TAU_MAX_S = 1e6


class TauTable:
    """The runtimes in force."""

    def __init__(self, client: Redis, keys: Keys, scripts: Scripts) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts

    def read(self) -> dict[str, float]:
        """Seconds by task type; types that have learned nothing have their starting values."""
        stored: Any = self._client.hgetall(self._keys.tau)
        learned = {k.decode(): float(v) for k, v in stored.items() if not k.startswith(b"samples:")}
        return {str(k): v for k, v in INITIAL_TAU.items()} | learned

    def samples(self) -> dict[str, int]:
        """How many completions each type has learned from."""
        stored: Any = self._client.hgetall(self._keys.tau)
        counts = {k.decode().removeprefix("samples:"): int(v) for k, v in stored.items() if k.startswith(b"samples:")}
        return {str(k): counts.get(str(k), 0) for k in INITIAL_TAU}

    def set(self, task_type: str, seconds: float) -> float:
        """Set tau by hand; returns the old value. InvalidRequest on an unknown type or a value outside the bounds."""
        kind = validate_task_type(task_type)
        if not (math.isfinite(seconds) and TAU_MIN_S <= seconds <= TAU_MAX_S):
            raise InvalidRequest("tau", seconds, f"seconds from {TAU_MIN_S:g} to {TAU_MAX_S:g}")
        reply = self._scripts.set_tau.run(
            self._client, self._keys.prefix, str(kind), repr(float(seconds)), INITIAL_TAU[kind]
        )
        return float(reply)
