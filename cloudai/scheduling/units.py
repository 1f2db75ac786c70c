"""Quantities as users write them, turned into GiB, cores and devices, and into integers that are added up."""

from __future__ import annotations

import math
import re
from numbers import Real

from cloudai.scheduling.errors import InvalidRequest

KIB_PER_GIB = 1 << 20
MILLI = 1000

#: Largest request in any dimension (cores, GiB or devices).
LARGEST = 1e6

# As container engines read them, K, M, G, T are powers of 1024, as KiB ... TiB are; KB ... TB are powers of
# 1000.
_BYTES_PER_UNIT: dict[str, int] = {
    "b": 1,
    **{unit + end: 1024**power for power, unit in enumerate("kmgt", 1) for end in ("", "i", "ib")},
    **{unit + "b": 1000**power for power, unit in enumerate("kmgt", 1)},
}
_AMOUNT = re.compile(r"\s*([0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})\s*([A-Za-z]{1,3})\s*", re.ASCII)

_NUMBER_ALLOWED = f"a finite number from 0 to {LARGEST:g}"
_SIZE_ALLOWED = f"a finite number of GiB from 0 to {LARGEST:g}, or a text such as '512MiB' or '4GiB'"


def parse_number(given: object, field: str) -> float:
    """Return a finite number in [0, 1e6]; a bool, NaN, negative or other thing raises InvalidRequest."""
    return _bounded(given, field, _NUMBER_ALLOWED)


def parse_gib(given: object, field: str) -> float:
    """Return GiB of a number of GiB or a text with a unit ("512MiB", "4GiB", "1.5G"), or raise
    InvalidRequest.

    A text without a unit is refused: engines read it as bytes, people mean GiB.
    """
    if not isinstance(given, str):
        return _bounded(given, field, _SIZE_ALLOWED)
    found = _AMOUNT.fullmatch(given)
    unit = _BYTES_PER_UNIT.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise InvalidRequest(field, given, _SIZE_ALLOWED)
    gib = float(found[1]) * unit / 2**30
    if gib > LARGEST:
        raise InvalidRequest(field, given, _SIZE_ALLOWED)
    return gib


def to_milli(amount: float) -> int:
    """Thousandths, rounded up; what is above 0 stays above 0."""
    return _round_up(amount * MILLI, amount)


def to_kib(gib: float) -> int:
    """KiB of a number of GiB, rounded up; what is above 0 stays above 0."""
    return _round_up(gib * KIB_PER_GIB, gib)


def _round_up(scaled: float, amount: float) -> int:
    # Rounded at the sixth place first: 0.035 * 1000 is 35.00000000000001 in binary and must not become 36.
    return max(math.ceil(round(scaled, 6)), 1 if amount > 0 else 0)


def _bounded(given: object, field: str, allowed: str) -> float:
    if isinstance(given, bool) or not isinstance(given, Real):
        raise InvalidRequest(field, given, allowed)
    try:
        number = float(given)  # raises for an integer past 1e308
    except (OverflowError, ValueError):
        raise InvalidRequest(field, given, allowed) from None
    if not 0.0 <= number <= LARGEST:  # NaN fails the comparison too
        raise InvalidRequest(field, given, allowed)
    return number
