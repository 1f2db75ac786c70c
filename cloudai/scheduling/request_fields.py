"""Checks of the fields of a request beside its resources: labels, constraints, deadlines (spec section 1)."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Literal

from cloudai.scheduling.errors import InvalidRequest

Unplaceability = Literal["wait", "reject"]
Constraints = tuple[tuple[str, str], ...]

#: Longest user_id, family, label name or label value (characters).
LABEL_LIMIT = 64
#: Longest node name (characters).
NODE_NAME_LIMIT = 255
#: Most constraints of one task.
CONSTRAINTS_LIMIT = 32


def checked_label(given: object, name: str, limit: int = LABEL_LIMIT) -> str | None:
    """A short printable text, or None; else InvalidRequest for the field `name`."""
    return None if given is None else _required_label(given, name, limit)


def _required_label(given: object, name: str, limit: int = LABEL_LIMIT) -> str:
    if isinstance(given, str) and 0 < len(given) <= limit and given.isprintable() and given.strip():
        return str(given)
    raise InvalidRequest(name, given, f"a text of 1 to {limit} printable characters, not blank")


def checked_constraints(given: object) -> Constraints:
    """Labels that a node must have, sorted by name; None: none; else InvalidRequest."""
    if given is None:
        return ()
    if not isinstance(given, dict):
        raise InvalidRequest("constraints", given, "a mapping of label to value, both text")
    if len(given) > CONSTRAINTS_LIMIT:
        raise InvalidRequest("constraints", f"{len(given)} labels", f"at most {CONSTRAINTS_LIMIT} labels")
    pairs = [(_required_label(name, "constraints"), value) for name, value in given.items()]
    return tuple(sorted((name, _required_label(value, f"constraints[{name}]")) for name, value in pairs))


def checked_unplaceable(given: object) -> Unplaceability:
    """Either "wait" (also for None) or "reject"; else InvalidRequest."""
    if given is None or given == "wait":
        return "wait"
    if given == "reject":
        return "reject"
    raise InvalidRequest("unplaceable", given, "'wait' or 'reject'")


def checked_deadline(given: object, now: float) -> float:
    """Epoch s of an aware datetime ahead of `now`, or of a timedelta from it; else InvalidRequest."""
    if isinstance(given, timedelta):
        if given <= timedelta(0):
            raise InvalidRequest("deadline", str(given), "a time span above 0 from now")
        return now + given.total_seconds()
    if not isinstance(given, datetime):
        raise InvalidRequest("deadline", given, "a datetime with a time zone, or a timedelta from now")
    if given.utcoffset() is None:
        raise InvalidRequest("deadline", given.isoformat(), "a datetime with a time zone (tzinfo)")
    try:
        due = given.timestamp()
    except (OverflowError, ValueError):
        due = -math.inf
    if due <= now:
        raise InvalidRequest("deadline", given.isoformat(), "a moment in the future")
    return due


def checked_epoch_seconds(given: object) -> float:
    """Epoch s of a deadline that came in a header; else InvalidRequest."""
    if isinstance(given, (int, float)) and not isinstance(given, bool) and 0 < given < 1e13:
        return float(given)
    raise InvalidRequest("deadline", given, "epoch seconds above 0")


def checked_limit(given: object) -> float | None:
    """The user's own limit on the runtime, s; raises InvalidRequest unless it is finite and above 0."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < math.inf:
        raise InvalidRequest("limit_s", given, "seconds above 0")
    return float(given)
