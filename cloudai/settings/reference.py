"""The reference page and the commented default file, made from the settings themselves.

`python -m cloudai.settings.reference` prints the page, with `--toml` the file; a test keeps the copies in the
repository equal to them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, get_args

from pydantic.fields import FieldInfo

from cloudai.settings.allowed import allowed_text
from cloudai.settings.loading import Settings
from cloudai.settings.sources import DEFAULT_FILES, ENV_FILE, PLAIN_NAMES, variable_name


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """What a user is told about one setting."""

    section: str
    key: str
    #: The default as it is written in TOML, "" where there is none.
    default: str
    #: A value as it is written in TOML: the default, else an example.
    sample: str
    #: What is allowed, in words.
    allowed: str
    description: str
    #: Environment variables that set it, the one that wins first.
    variables: tuple[str, ...]


def setting_docs() -> Iterator[SettingDoc]:
    """Every setting, in the order of the sections."""
    for section, holder in Settings.model_fields.items():
        for key, field in _fields(holder).items():
            default = _default_text(field)
            plain = [name for name, place in PLAIN_NAMES.items() if place == (section, key)]
            yield SettingDoc(
                section=section,
                key=key,
                default=default,
                sample=default or toml_value((field.examples or [""])[0]),
                allowed=allowed_text(field),
                description=field.description or "",
                variables=(variable_name(section, key), *plain),
            )


def as_markdown() -> str:
    """docs/configuration.md."""
    lines = [_PAGE_HEAD]
    for section, docs in groupby(setting_docs(), key=attrgetter("section")):
        lines += [f"## [{section}]", "", _section_text(section), ""]
        lines += ["| setting | default | allowed | meaning |", "| --- | --- | --- | --- |"]
        for doc in docs:
            default = f"`{doc.default}`" if doc.default else "not set"
            cells = [f"`{doc.key}`", default, doc.allowed, doc.description]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def as_toml() -> str:
    """The commented default file: every setting with its default, none of them active."""
    lines = [_FILE_HEAD]
    for section, docs in groupby(setting_docs(), key=attrgetter("section")):
        lines += ["", f"# {_section_text(section)}", f"[{section}]"]
        for doc in docs:
            example = "" if doc.default else " An example:"
            lines += [
                "",
                f"# {doc.description}{example}",
                f"# Allowed: {doc.allowed}.",
                f"#{doc.key} = {doc.sample}",
            ]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A plain value as TOML writes it: text, number, boolean, list or table."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_value(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    # TOML forbids DEL in a string, JSON does not escape it.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _fields(holder: FieldInfo) -> dict[str, FieldInfo]:
    section: Any = holder.annotation
    fields: dict[str, FieldInfo] = section.model_fields
    return fields


def _section_text(section: str) -> str:
    model = Settings.model_fields[section].annotation
    return (model.__doc__ or "").strip()


def _default_text(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    return "" if value is None and type(None) in get_args(field.annotation) else toml_value(value)


_FILES = " or ".join(f"./{path.as_posix()}" for path in DEFAULT_FILES)

_PLAIN_ROWS = "\n".join(f"| `{name}` | `{section}.{key}` |" for name, (section, key) in PLAIN_NAMES.items())

_FILE_HEAD = f"""\
# Settings of CloudAI. Every line that starts with # and a name is a default; take the # away to change it.
# Read from the file that {ENV_FILE} names, else from {_FILES}.
# An environment variable wins over this file: {variable_name("redis", "url")} is url of [redis]."""

_PAGE_HEAD = f"""\
# Configuration

A setting is taken from the first of these that has it:

1. an argument in code: `Settings.load(redis={{"url": "redis://broker:6379/0"}})`
2. an environment variable: `CLOUDAI_`, the section, two underscores, the key, for instance
   `{variable_name("redis", "url")}` or `{variable_name("scheduling", "sla_multiplier_by_type")}`
3. the TOML file that `{ENV_FILE}` names; without it {_FILES}, the first that exists
4. the default

Lists and tables are taken whole. In an environment variable a list is text parted at commas
(`/data,/scratch`), a table is `key=value` pairs parted at commas (`zone=eu-1,gpu=a100`), JSON works for both,
and a size has its unit (`16GiB`).

These plain names work too; where both are set, the `CLOUDAI_` name wins:

| plain name | setting |
| --- | --- |
{_PLAIN_ROWS}

Unknown sections and keys are refused, in the file and in the environment (`CLOUDAI_REDIS_URL`, an underscore
too few, is one), and so is a value outside its bounds. Nothing starts then, and the error has a line for
each problem: where it was set, its key, what was given and what is allowed.

Names end with their unit: `_s` is seconds, `_h` hours, `_kib` KiB. This page is made from the settings
themselves: `python -m cloudai.settings.reference` prints it.
"""


if __name__ == "__main__":
    sys.stdout.write(as_toml() if "--toml" in sys.argv[1:] else as_markdown())
