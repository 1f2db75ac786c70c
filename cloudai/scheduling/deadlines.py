"""The time that a task has (spec section 3). Redis stamps the deadline, by its own clock."""

from __future__ import annotations

from cloudai.scheduling.errors import InvalidRequest

#: Bounds of k, the multiplier of tau that gives a task its time.
MULTIPLIER_MIN = 1.5
MULTIPLIER_MAX = 2.5


def validate_multiplier(k: object, field: str = "sla_multiplier") -> float:
    """Return k as a float if it is a number in [1.5, 2.5]; else raise InvalidRequest (spec section 3)."""
    if isinstance(k, (int, float)) and not isinstance(k, bool) and MULTIPLIER_MIN <= k <= MULTIPLIER_MAX:
        return float(k)
    raise InvalidRequest(field, k, f"a number from {MULTIPLIER_MIN} to {MULTIPLIER_MAX}")


def sla_seconds(k: float, tau: float) -> float:
    """Time that a task has from its arrival: k * tau, in s (spec section 3)."""
    return k * tau
