"""The errors of CloudAI.

    CloudAIError                 root of the whole tree
    ├── InvalidRequest           a submission or a setting holds a value that is not allowed
    ├── InvalidParameters        a parameter set is refused as a whole
    ├── Unplaceable              a task asks for more than any node has
    └── CannotDecide             a scheduler gives up; the fallback decides

Celery and pickle rebuild an exception as ``type(*args)``, so each class keeps in ``args`` exactly what its
constructor takes, as plain values that JSON can hold.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Longest text of a refused value that an error repeats (characters).
GIVEN_LIMIT = 200


class CloudAIError(Exception):
    """Root of every error that CloudAI raises."""


class InvalidRequest(CloudAIError, ValueError):
    """A value is not allowed: correct the named field and submit again. Nothing was written anywhere."""

    def __init__(self, field: str, given: object, allowed: str) -> None:
        self.field = field
        self.given = _plain(given)
        self.allowed = allowed
        super().__init__(field, self.given, allowed)

    def __str__(self) -> str:
        return f"{self.field}: {self.given!r} was given; allowed: {self.allowed}"


class InvalidParameters(CloudAIError, ValueError):
    """A parameter set is refused as a whole: mend each reason; the parameters in force stay."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = [reasons] if isinstance(reasons, str) else list(reasons)
        super().__init__(self.reasons)

    def __str__(self) -> str:
        return "parameters refused: " + "; ".join(self.reasons)


class Unplaceable(CloudAIError):
    """A task asks for more than any node could ever hold: ask for less, add a node, or let it wait."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)

    def __str__(self) -> str:
        return f"{self.why}; ask for less, add a node, or submit with unplaceable='wait'"


class CannotDecide(CloudAIError):
    """A scheduler cannot rank the feasible nodes; Round-Robin decides and the reason is counted."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)

    def __str__(self) -> str:
        return f"the scheduler cannot decide: {self.reason}"


def _plain(given: object) -> str | int | float | bool | None:
    """Keep a short scalar as it is; anything else as its text, which pickle and JSON can carry."""
    if given is None or type(given) in (bool, float):
        return given  # type: ignore[return-value]
    if type(given) is int and -(10**18) < given < 10**18:
        return given
    if isinstance(given, str):
        return str(given)[:GIVEN_LIMIT].encode("utf-8", "backslashreplace").decode("utf-8")
    try:
        text = repr(given)
    except Exception:  # a broken __repr__, or an integer of too many digits, must not hide the refusal
        text = f"<{type(given).__name__}>"
    return text[:GIVEN_LIMIT].encode("utf-8", "backslashreplace").decode("utf-8")
