"""Deadlines and whether they were met (spec section 3). Times are epoch seconds, durations seconds."""

from __future__ import annotations

from cloudai.scheduling.errors import InvalidRequest

#: Bounds and default of k, the multiplier of tau that gives a task its time.
MULTIPLIER_MIN = 1.5
MULTIPLIER_MAX = 2.5
MULTIPLIER_DEFAULT = 2.0


def validate_multiplier(k: object, field: str = "sla_multiplier") -> float:
    """Return k as a float if it is a number in [1.5, 2.5]; else raise InvalidRequest (spec section 3)."""
    if isinstance(k, (int, float)) and not isinstance(k, bool) and MULTIPLIER_MIN <= k <= MULTIPLIER_MAX:
        return float(k)
    raise InvalidRequest(field, k, f"a number from {MULTIPLIER_MIN} to {MULTIPLIER_MAX}")


def sla_seconds(k: float, tau: float) -> float:
    """Time that a task has from its arrival: k * tau, in s (spec section 3)."""
    return k * tau


def deadline(arrival: float, k: float, tau: float) -> float:
    """Deadline = arrival + k * tau; with an ETA, arrival is the ETA (spec section 3)."""
    return arrival + sla_seconds(k, tau)


def sla_success(succeeded: bool, finished_at: float, due: float) -> bool:
    """Succeeded, and not after the deadline `due`: a failure is never a success (spec section 3)."""
    return succeeded and finished_at <= due
