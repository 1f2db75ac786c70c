"""The kinds of value that settings are made of, each with the words that say what is allowed.

An environment variable brings text where a file brings a list or a table, so those kinds read text too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from cloudai.scheduling.deadlines import MULTIPLIER_MAX, MULTIPLIER_MIN
from cloudai.scheduling.task_types import TASK_TYPES
from cloudai.scheduling.units import parse_gib


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a value of this kind may be, in words, for error messages and for the reference page."""

    text: str


def read_list(value: Any) -> Any:
    """Text from the environment as a list: JSON if it starts with `[`, else parted at commas."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        return _read_json(text, "a list")
    return [part.strip() for part in text.split(",") if part.strip()]


def read_table(value: Any) -> Any:
    """Text from the environment as a table: JSON if it starts with `{`, else `key=value` parted at commas."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("{"):
        return _read_json(text, "a table")
    table = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, item = part.partition("=")
        if not equals:
            raise ValueError(f"a table: key=value pairs parted at commas, or JSON; {part!r} has no '='")
        table[key.strip()] = item.strip()
    return table


def _read_json(text: str, kind: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{kind} in JSON; this is not JSON: {error}") from error


def _read_gib(value: Any) -> Any:
    return value if value is None else parse_gib(value, "value")


def _known_task_types(table: Mapping[str, float]) -> Mapping[str, float]:
    unknown = sorted(set(table) - set(TASK_TYPES))
    if unknown:
        raise ValueError(f"a table of task types ({', '.join(TASK_TYPES)}); there is no {', '.join(unknown)}")
    return table


def _plain_labels(table: Mapping[str, str]) -> Mapping[str, str]:
    for key, item in table.items():
        if not _LABEL.fullmatch(key) or not item.isprintable() or len(item) > 64:
            raise ValueError(
                "names of letters, digits, '.', '_', '-', values of at most 64 printable characters; "
                f"{key!r} = {item!r} is not one"
            )
    return table


def _no_blanks(items: Sequence[str]) -> Sequence[str]:
    if any(not item.strip() for item in items):
        raise ValueError("a list of text, none of it blank")
    return items


_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: Multiplier k of spec section 3.
Multiplier = Annotated[float, Field(ge=MULTIPLIER_MIN, le=MULTIPLIER_MAX)]

RedisUrl = Annotated[
    str,
    StringConstraints(pattern=r"^(rediss?|sentinel)://.+"),
    Allowed("a URL that starts with redis://, rediss:// or sentinel://"),
]

ResultUrl = Annotated[
    str,
    StringConstraints(pattern=r"^$|^[a-z][a-z0-9+.-]*://.+"),
    Allowed("the URL of a Celery result backend, or empty"),
]

MongoUrl = Annotated[
    str,
    StringConstraints(pattern=r"^mongodb(\+srv)?://.+"),
    Allowed("a URL that starts with mongodb:// or mongodb+srv://"),
]

DockerUrl = Annotated[
    str,
    StringConstraints(pattern=r"^$|^(unix|tcp|https?|npipe|ssh)://.+"),
    Allowed("a URL such as unix:///var/run/docker.sock or tcp://host:2376, or empty"),
]

Namespace = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,31}$"),
    Allowed("1 to 32 letters, digits and dashes, the first not a dash"),
]

DatabaseName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,38}$"),
    Allowed("1 to 38 letters, digits, dashes and underscores"),
]

NodeName = Annotated[
    str,
    StringConstraints(pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$"),
    Allowed("at most 128 letters, digits, '.', '_', '-' and '@', the first a letter or digit; or empty"),
]

SchedulerName = Annotated[
    str,
    StringConstraints(pattern=r"^(rts|round-robin|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$"),
    Allowed('"rts", "round-robin", or a class of your own as "module:Class"'),
]

#: A memory or storage size; kept in GiB.
Gib = Annotated[
    float,
    BeforeValidator(_read_gib),
    Field(gt=0, le=1e6),
    Allowed('a size such as "512MiB" or "4GiB", or a number of GiB; more than 0, at most 1000000 GiB'),
]

TextList = Annotated[
    tuple[str, ...],
    BeforeValidator(read_list),
    AfterValidator(_no_blanks),
    Allowed("a list of text"),
]

Labels = Annotated[
    dict[str, str],
    BeforeValidator(read_table),
    AfterValidator(_plain_labels),
    Allowed('a table of text, for instance {zone = "eu-1", gpu = "a100"}'),
]

#: Lambda of spec section 2.
Rate = Annotated[float, Field(gt=0, le=1)]

RateTable = Annotated[
    dict[str, Rate],
    BeforeValidator(read_table),
    AfterValidator(_known_task_types),
    Allowed("a table: task type = a number more than 0, at most 1"),
]

MultiplierTable = Annotated[
    dict[str, Multiplier],
    BeforeValidator(read_table),
    AfterValidator(_known_task_types),
    Allowed("a table: task type = a number from 1.5 to 2.5"),
]
