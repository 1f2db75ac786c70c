"""What a user writes on a command line, turned into values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from cloudai.scheduling.errors import InvalidRequest

_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)", re.ASCII)
_SPAN_ALLOWED = "a time span such as 90s, 10m, 1h30m or 2d, or a number of seconds"
_MOMENT_ALLOWED = "a moment in ISO form with its time zone, such as 2027-01-31T18:00+01:00"
_LONGEST_S = 3.2e9


def amount(text: str | None) -> float | str | None:
    """A number as a number (cores, GiB, devices); anything else ("4GiB") as it is, to be checked later."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def span_s(text: str, field: str, allowed: str = _SPAN_ALLOWED) -> float:
    """Seconds of "90s", "1h30m", "2d" or a plain number. InvalidRequest, with what is allowed, on anything else."""
    try:
        seconds = float(text)
    except ValueError:
        parts = _SPAN.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise InvalidRequest(field, text, allowed) from None
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not 0 < seconds <= _LONGEST_S:
        raise InvalidRequest(field, text, f"{allowed}, above 0")
    return seconds


def deadline(text: str | None) -> datetime | timedelta | None:
    """A span from now ("10m"), or a moment with a time zone ("2027-01-31T18:00+01:00")."""
    if text is None:
        return None
    if "T" in text or text.count("-") >= 2:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise InvalidRequest("deadline", text, _MOMENT_ALLOWED)
        return moment
    return timedelta(seconds=span_s(text, "deadline", f"{_SPAN_ALLOWED}; or {_MOMENT_ALLOWED}"))


def pairs(given: Iterable[str], field: str, *, secret: bool = True) -> dict[str, str]:
    """NAME=VALUE words as a mapping; InvalidRequest on a word without a name, or a name given twice.

    Args:
        given: the words.
        field: what the error calls them.
        secret: whether a word may be one that an error must not repeat.

    """
    found: dict[str, str] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name:
            shown = "a word without '='" if secret and not equals else word
            raise InvalidRequest(field, "=" if secret and equals else shown, "NAME=VALUE")
        if name in found:
            raise InvalidRequest(field, name, "each name once")
        found[name] = value
    return found


def volumes(given: Iterable[str]) -> dict[str, dict[str, str]]:
    """HOST:BIND[:ro|rw] words as `run_container` takes them."""
    found: dict[str, dict[str, str]] = {}
    for word in given:
        parts = word.split(":")
        if len(parts) not in (2, 3) or not all(parts):
            raise InvalidRequest(
                "volume", word, "/on/the/node:/in/the/container or the same with :ro or :rw behind it"
            )
        host, bind, *mode = parts
        if host in found:
            raise InvalidRequest("volume", host, "each folder once")
        found[host] = {"bind": bind, "mode": mode[0] if mode else "ro"}
    return found
