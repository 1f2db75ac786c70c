"""Tau, the learned runtime of each task type and of families of jobs, in Redis (spec section 2).

Finish learns it, by the rule of scheduling/learning.py; here it is read and set. A value is kept as one text: tau,
variance, samples, outliers in a row, outliers rejected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from cloudai.names import Keys
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.learning import TAU_MAX_S, TAU_MIN_S, Learned
from cloudai.scheduling.task_types import INITIAL_TAU, validate_task_type
from cloudai.state.scripts import Scripts

#: What the field of a type's share ends with, in the hash of types.
_SHARE = ":share"
#: Families that `families` reads in one round trip.
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Family:
    """What is known of one family of jobs."""

    task_type: str
    family: str
    learned: Learned


class TauTable:
    """The runtimes in force."""

    def __init__(self, client: Redis, keys: Keys, scripts: Scripts) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts

    def read(self) -> dict[str, float]:
        """Seconds by task type; types that have learned nothing have their starting values."""
        return {kind: known.tau for kind, known in self.learned().items()}

    def samples(self) -> dict[str, int]:
        """How many completions each type has learned from."""
        return {kind: known.samples for kind, known in self.learned().items()}

    def learned(self) -> dict[str, Learned]:
        """All that is known of each type; types that have learned nothing have their starting values."""
        stored: Any = self._client.hgetall(self._keys.tau)
        found = read_types([part for pair in stored.items() for part in pair])
        return {str(kind): Learned(seconds) for kind, seconds in INITIAL_TAU.items()} | found

    def families(self, limit: int = _PAGE) -> list[Family]:
        """The families that were learned last, latest first."""
        names: Any = self._client.zrange(self._keys.tau_changed, 0, limit - 1, desc=True)
        if not names:
            return []
        values: Any = self._client.hmget(self._keys.tau_families, names)
        found = []
        for name, value in zip(names, values, strict=True):
            if value is not None:
                task_type, _, family = name.decode().partition(":")
                found.append(Family(task_type, family, read_learned(value.decode())))
        return found

    def family_count(self) -> int:
        """How many families are known."""
        return int(self._client.hlen(self._keys.tau_families))

    def set(self, task_type: str, seconds: float) -> float:
        """Set tau by hand; returns the old value. Spread and samples are learned anew.

        InvalidRequest on an unknown type or a value outside the bounds.
        """
        kind = validate_task_type(task_type)
        if not (math.isfinite(seconds) and TAU_MIN_S <= seconds <= TAU_MAX_S):
            raise InvalidRequest("tau", seconds, f"seconds from {TAU_MIN_S:g} to {TAU_MAX_S:g}")
        reply = self._scripts.set_tau.run(
            self._client, self._keys.prefix, str(kind), repr(float(seconds)), INITIAL_TAU[kind]
        )
        return float(reply)


def read_learned(text: str) -> Learned:
    """The text of a learned runtime. ValueError on anything else."""
    tau, *rest = text.split()
    if not rest:  # an earlier release kept tau alone
        return Learned(float(tau))
    variance, samples, run, rejected = rest
    return Learned(float(tau), float(variance), int(samples), int(run), int(rejected))


def read_shares(pairs: Sequence[bytes]) -> dict[str, Learned]:
    """Of the hash of types: runtime over the time from arrival to deadline, by task type."""
    return {
        kind.decode().removesuffix(_SHARE): read_learned(value.decode())
        for kind, value in zip(pairs[::2], pairs[1::2], strict=True)
        if kind.endswith(_SHARE.encode())
    }


def read_types(pairs: Sequence[bytes]) -> dict[str, Learned]:
    """Field, value, field, value ... of the hash of types."""
    return {
        kind.decode(): read_learned(value.decode())
        for kind, value in zip(pairs[::2], pairs[1::2], strict=True)
        if b":" not in kind
    }
