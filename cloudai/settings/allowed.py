"""What a setting may be, in words: one wording for error messages and for the reference page."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from cloudai.settings.values import Allowed


def allowed_text(field: FieldInfo) -> str:
    """The values that a setting accepts, for instance `a number from 1.5 to 2.5`."""
    words = next((item.text for item in _metadata(field) if isinstance(item, Allowed)), None)
    if words is not None:
        return words
    kind = _without_none(field.annotation)
    if get_origin(kind) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(kind))
    if kind is bool:
        return "true or false"
    if kind is str:
        return "text"
    return f"{'a whole number' if kind is int else 'a number'} {_range_text(_metadata(field))}".rstrip()


def _metadata(field: FieldInfo) -> list[Any]:
    """The field's own metadata, and that of the kind inside `kind | None`."""
    inside = [item for member in get_args(field.annotation) for item in getattr(member, "__metadata__", ())]
    return [*field.metadata, *inside]


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(member for member in get_args(annotation) if member is not type(None))
    return annotation


def _range_text(metadata: list[Any]) -> str:
    low = next((item for item in metadata if isinstance(item, (Ge, Gt))), None)
    high = next((item for item in metadata if isinstance(item, (Le, Lt))), None)
    match low, high:
        case Ge(ge=least), Le(le=most):
            return f"from {_number(least)} to {_number(most)}"
        case Gt(gt=below), Le(le=most):
            return f"more than {_number(below)}, at most {_number(most)}"
        case _:
            return ""


def _number(value: Any) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)
