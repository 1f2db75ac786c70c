"""The documentation names what exists: files, headings, commands, errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import cloudai.containers.errors
import cloudai.errors
from cloudai.cli import cloudai as program
from cloudai.errors import CloudAIError

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
#: The program at the start of a command or behind `celery -A proj`, options left out; `from cloudai import` is none.
_COMMAND = re.compile(r"(?:^|celery -A \S+ )cloudai (?:(?:-A|--app) \S+ )?([a-z][a-z-]*)(?: ([a-z]+)\b)?")
_PROMPT = re.compile(r"^(?:[A-Z_]+=\S+ )+")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(page: Path) -> Iterator[str]:
    """Inline code, and the lines of fenced and indented blocks."""
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield _PROMPT.sub("", line.strip())
        else:
            yield from _SPAN.findall(line)


def commands(page: Path) -> Iterator[tuple[str, str]]:
    for text in code(page):
        for found in _COMMAND.finditer(text):
            yield found[1], found[2] or ""


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_resolve(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{named(page)} links to {link}"
        assert not anchor or anchor in anchors(target), f"{named(page)} links to {link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_exist(page: Path) -> None:
    context = click.Context(program)
    for name, word in commands(page):
        command = program.get_command(context, name)
        assert command is not None, f"{named(page)} names `cloudai {name}`"
        if isinstance(command, click.Group) and word:
            assert word in command.commands, f"{named(page)} names `cloudai {name} {word}`"


def test_commands_are_found_in_the_pages() -> None:
    found = {name for page in PAGES for name, _ in commands(page)}
    assert {"submit", "explain", "drain", "params"} <= found


def test_commands_page_names_every_command() -> None:
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    for name in program.list_commands(click.Context(program)):
        assert re.search(rf"`{name}\b", text), f"docs/commands.md does not name {name}"


@pytest.mark.parametrize("module", [cloudai.errors, cloudai.containers.errors], ids=lambda m: m.__name__)
def test_api_page_names_every_error(module: object) -> None:
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, CloudAIError)]
    assert classes
    for error in classes:
        assert re.search(rf"\b{error.__name__}\b", text), f"docs/api.md does not name {error.__name__}"


def test_event_names_of_the_operating_page_are_logged() -> None:
    page = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    table = page.partition("## Logs")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    tops = ("cloudai", "workers", "beat")
    sources = "".join(path.read_text(encoding="utf-8") for top in tops for path in (ROOT / top).rglob("*.py"))
    events = [name.split()[0] for row in rows for name in _SPAN.findall(row)]
    assert events
    for event in events:
        assert re.search(rf"[\"']{event}\b", sources), f"docs/operating.md names the event {event}"
