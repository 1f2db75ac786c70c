"""Turns pydantic's findings into lines that say where a setting came from and what is allowed."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from cloudai.scheduling.errors import InvalidRequest
from cloudai.settings.allowed import allowed_text
from cloudai.settings.errors import ConfigurationError
from cloudai.settings.sources import ENV_DELIMITER, NOT_OURS, PLAIN_NAMES, variable_name

_PASSWORD = re.compile(r"(://[^/@\s]*?:)[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class Layer:
    """The settings that one source gave."""

    #: "argument", "environment" or the path of the file.
    name: str
    #: section -> key -> value, as the source gave it.
    values: Mapping[str, Any]

    def gives(self, section: str, key: str | None) -> bool:
        """Whether this source set the section, or the key in it."""
        values = self.values.get(section)
        if key is None or not isinstance(values, Mapping):
            return section in self.values
        return key in values


def describe(model: type[BaseModel], detail: ErrorDetails, layers: Sequence[Layer]) -> Iterator[str]:
    """Lines `source: section.key: given X, allowed: Y` for one finding; a contradiction may have several."""
    loc = tuple(str(part) for part in detail["loc"])
    if detail["type"] == "cross_check":
        for key, given, allowed in detail["ctx"]["problems"]:
            yield _line((*loc, *key.split(".")), given, allowed, layers)
    elif detail["type"] == "extra_forbidden":
        yield _unknown(model, loc, layers)
    else:
        yield _line(loc, detail["input"], _allowed(model, loc, detail), layers)


def refuse_single_underscores(model: type[BaseModel], environ: Mapping[str, str]) -> None:
    """ConfigurationError on CLOUDAI_REDIS_URL and its like, which would set nothing: two underscores are needed."""
    problems = []
    for section in model.model_fields:
        for key in _section(model, section).model_fields:
            right = variable_name(section, key)
            wrong = right.replace(ENV_DELIMITER, "_", 1)
            if wrong in environ and wrong not in NOT_OURS:
                problems.append(
                    f"{wrong}: unknown variable (did you mean {right}?), allowed: two underscores behind the section"
                )
    if problems:
        raise ConfigurationError(*problems)


def _line(loc: tuple[str, ...], given: Any, allowed: str, layers: Sequence[Layer]) -> str:
    return f"{_source(loc, layers)}: {'.'.join(loc)}: given {_shown(given)}, allowed: {allowed}"


def _unknown(model: type[BaseModel], loc: tuple[str, ...], layers: Sequence[Layer]) -> str:
    known = list(model.model_fields if len(loc) == 1 else _section(model, loc[0]).model_fields)
    kind = "section" if len(loc) == 1 else "setting"
    close = difflib.get_close_matches(loc[-1], known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{_source(loc, layers)}: {'.'.join(loc)}: unknown {kind}{hint}, allowed: {', '.join(known)}"


def _allowed(model: type[BaseModel], loc: tuple[str, ...], detail: ErrorDetails) -> str:
    if len(loc) == 1:
        return f"a table [{loc[0]}] of settings"
    if detail["type"] == "value_error":
        error = detail["ctx"]["error"]
        if not isinstance(error, InvalidRequest):
            # Raised by our own kinds of value (values.py), whose message is what is allowed.
            return str(error)
    return allowed_text(_section(model, loc[0]).model_fields[loc[1]])


def _section(model: type[BaseModel], name: str) -> type[BaseModel]:
    section = model.model_fields[name].annotation
    assert isinstance(section, type)
    assert issubclass(section, BaseModel)
    return section


def _source(loc: tuple[str, ...], layers: Iterable[Layer]) -> str:
    section, key = loc[0], loc[1] if len(loc) > 1 else None
    for layer in layers:
        if layer.gives(section, key):
            if layer.name == "environment":
                return _variable(section, key or next(iter(layer.values[section])))
            return layer.name
    return "default"


def _variable(section: str, key: str) -> str:
    """The environment variable that set a value: the prefixed name, else the plain one."""
    name = variable_name(section, key)
    plain = [plain for plain, place in PLAIN_NAMES.items() if place == (section, key)]
    return next((other for other in plain if other in os.environ and name not in os.environ), name)


def _shown(given: Any) -> str:
    text = repr(given)
    text = _PASSWORD.sub(r"\1***@", text)
    return text if len(text) <= 120 else text[:117] + "..."
