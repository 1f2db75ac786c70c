"""The parameters of the score: one checked, frozen value, and its JSON form (spec section 6).

The file holds one object whose keys are the fields of `GAParams` and `schema`. It is taken whole or refused
whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from cloudai.scheduling.errors import InvalidParameters
from cloudai.scheduling.task_types import TASK_TYPES

#: Version of the JSON form.
SCHEMA = 1

Table = Mapping[str, Mapping[str, float]]
Vector = Mapping[str, float]

#: Inclusive bounds.
WEIGHT_RANGE = (0.0, 1e3)
RISK_RANGE = (0.0, 1e6)
AFFINITY_RANGE = (-5.0, 5.0)
PENALTY_RANGE = (0.0, 1e6)
FACTOR_RANGE = (1e-6, 1e6)

_SCALARS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("theta1", "theta2", "theta3", "theta4"), WEIGHT_RANGE),
    **dict.fromkeys(("alpha", "beta"), RISK_RANGE),
    **dict.fromkeys(("a1", "a2", "a3", "g1", "g2", "g3"), WEIGHT_RANGE),
    "order_margin": (0.0, 10.0),
    "order_runtime": (-10.0, 10.0),
    "order_lateness": (0.0, 1.0),
    "order_caution": (0.0, 100.0),
    "order_safety": (0.0, 10.0),
}
#: The numbers of the parameters, in the order in which a replay reads them as one vector.
GENES: tuple[str, ...] = tuple(_SCALARS)
#: Genes that a file may leave out: files written before there were any have none.
_OPTIONAL = frozenset(name for name in _SCALARS if name.startswith("order_"))
_TABLES = {"affinity": AFFINITY_RANGE, "speed": FACTOR_RANGE}
_VECTORS = {"penalty": PENALTY_RANGE, "base": FACTOR_RANGE}
_BY_TYPE = frozenset({"affinity", "speed", "base"})
_TYPES = frozenset(map(str, TASK_TYPES))


@dataclass(frozen=True)
class GAParams:
    """Parameters of the score, valid in any instance; InvalidParameters names every field that is out of
    range.
    """

    #: weight of the cpu ratio in the predicted runtime
    theta1: float = 0.1
    #: weight of the memory ratio
    theta2: float = 0.1
    #: weight of the gpu ratio
    theta3: float = 0.3
    #: weight of the load
    theta4: float = 0.2
    #: risk of one second of lateness
    alpha: float = 10.0
    #: risk of the load
    beta: float = 1.0
    #: affinity weights: speed, SLA kept, overload
    a1: float = 1.0
    a2: float = 2.0
    a3: float = 0.5
    #: penalty weights: SLA missed, overload, energy
    g1: float = 2.0
    g2: float = 1.0
    g3: float = 0.5
    #: dispatch order: a waiting task can still make it if so many times its predicted runtime fit before its deadline
    order_margin: float = 1.0
    #: dispatch order: weight of the predicted runtime beside the deadline; above 0 short tasks gain
    order_runtime: float = 0.0
    #: dispatch order among those that are late: weight of the lateness; 0 is by deadline, 1 is shortest first
    order_lateness: float = 0.0
    #: dispatch order among those that can make it: weight of the time that they lack of a safe margin; 0 is by deadline
    order_caution: float = 0.0
    #: ... and that margin: so many times the predicted runtime
    order_safety: float = 1.2
    #: type -> worker -> score in [-5, 5]
    affinity: Table = field(default_factory=dict, hash=False)
    #: worker -> score >= 0; missing: 0
    penalty: Vector = field(default_factory=dict, hash=False)
    #: type -> worker -> s_cj, runtime there over runtime on a reference node; missing: 1
    speed: Table = field(default_factory=dict, hash=False)
    #: type -> b_c, uncontended runtime over tau; missing: 1
    base: Vector = field(default_factory=dict, hash=False)
    #: counted up by each publication; 0: never published
    version: int = 0

    def __post_init__(self) -> None:
        reasons = list(_reasons({item.name: getattr(self, item.name) for item in fields(self)}))
        if reasons:
            raise InvalidParameters(reasons)
        for name in _SCALARS:
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in _VECTORS:
            object.__setattr__(self, name, _frozen(getattr(self, name)))
        for name in _TABLES:
            rows = {str(kind): _frozen(row) for kind, row in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(rows))

    @classmethod
    def from_json(cls, text: str) -> GAParams:
        """Read `to_json`'s form; raises InvalidParameters with every reason found, and never takes a part.

        Every number must be there but those of the dispatch order, which older files do not have; the tables,
        and `version`, may be left out.
        """
        values = _read_object(text)
        if "schema" not in values and "w_deadline" in values:
            raise InvalidParameters(
                ["the old flat schema (w_deadline ...) is not read; write what `cloudai params` shows"]
            )
        schema = values.pop("schema", None)
        if type(schema) is not int or schema != SCHEMA:
            raise InvalidParameters([f"schema: {_shown(schema)} was given; allowed: {SCHEMA}"])
        known = {item.name for item in fields(cls)}
        reasons = [f"{name}: missing" for name in _SCALARS if name not in values and name not in _OPTIONAL]
        reasons += [f"{_shown(name)}: unknown key" for name in sorted(values.keys() - known)]
        reasons += _reasons({name: value for name, value in values.items() if name in known})
        if reasons:
            raise InvalidParameters(reasons)
        return cls(**values)

    def to_json(self) -> str:
        """Deterministic text, indented for people, keys of tables sorted; ends with a newline."""
        values: dict[str, Any] = {"schema": SCHEMA, "version": self.version}
        values |= {name: getattr(self, name) for name in _SCALARS}
        for name in ("affinity", "speed"):
            values[name] = {
                kind: dict(sorted(row.items())) for kind, row in sorted(getattr(self, name).items())
            }
        for name in ("penalty", "base"):
            values[name] = dict(sorted(getattr(self, name).items()))
        return json.dumps(values, indent=2, allow_nan=False) + "\n"


def differences(old: GAParams, new: GAParams, limit: int = 50) -> list[str]:
    """What changed but the version, a line each: "alpha: 10 -> 12"; past `limit` lines they are summed up in
    one.
    """
    lines = []
    before, after = dict(_flat(old)), dict(_flat(new))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            lines.append(f"{name}: {_number(before.get(name))} -> {_number(after.get(name))}")
    if len(lines) > limit:
        lines[limit:] = [f"and {len(lines) - limit} more"]
    return lines


def _flat(parameters: GAParams) -> Iterator[tuple[str, float]]:
    for name in _SCALARS:
        yield name, getattr(parameters, name)
    for name in _VECTORS:
        for key, value in getattr(parameters, name).items():
            yield f"{name}[{key}]", value
    for name in _TABLES:
        for kind, row in getattr(parameters, name).items():
            for worker, value in row.items():
                yield f"{name}[{kind}][{worker}]", value


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _frozen(row: Mapping[str, float]) -> Vector:
    return MappingProxyType({str(key): float(value) for key, value in row.items()})


def _read_object(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise InvalidParameters([f"not readable as JSON: {error}"]) from None
    if not isinstance(values, dict):
        raise InvalidParameters([f"one object is allowed; {_shown(values)} was given"])
    return values


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        again = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {_shown(again)} stands there twice")
    return values


def _reasons(values: Mapping[str, Any]) -> Iterator[str]:
    """Every reason why these fields are not allowed."""
    for name, value in values.items():
        if name in _SCALARS:
            yield from _out_of_range(name, value, _SCALARS[name])
        elif name in _VECTORS:
            yield from _vector_reasons(name, value, _VECTORS[name], by_type=name in _BY_TYPE)
        elif name in _TABLES:
            if not isinstance(value, Mapping):
                yield f"{name}: {_shown(value)} was given; allowed: an object of task types"
                continue
            yield from _unknown_types(name, value)
            for kind, row in value.items():
                yield from _vector_reasons(f"{name}[{kind}]", row, _TABLES[name], by_type=False)
        elif type(value) is not int or value < 0:
            yield f"version: {_shown(value)} was given; allowed: a whole number from 0"


def _vector_reasons(name: str, row: Any, bounds: tuple[float, float], *, by_type: bool) -> Iterator[str]:
    if not isinstance(row, Mapping):
        yield f"{name}: {_shown(row)} was given; allowed: an object of numbers"
        return
    if by_type:
        yield from _unknown_types(name, row)
    for key, value in row.items():
        if not isinstance(key, str) or not key:
            yield f"{name}: the key {_shown(key)} was given; allowed: a name"
        yield from _out_of_range(f"{name}[{key}]", value, bounds)


def _unknown_types(name: str, row: Mapping[Any, Any]) -> Iterator[str]:
    for kind in row:
        if kind not in _TYPES:
            yield f"{name}: the type {_shown(kind)} was given; allowed: {', '.join(TASK_TYPES)}"


def _out_of_range(name: str, value: Any, bounds: tuple[float, float]) -> Iterator[str]:
    low, high = bounds
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and low <= value <= high) or (isinstance(value, float) and math.isnan(value)):
        yield f"{name}: {_shown(value)} was given; allowed: a number from {low:g} to {high:g}"


def _shown(value: Any) -> str:
    if type(value) is int and value.bit_length() > 200:
        return "a huge number"
    return repr(value)[:80]
