"""What commands print: tables for people, one JSON value for programs. And quantities as people read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

F = TypeVar("F", bound=Callable[..., Any])

#: Colours of states.
_STYLES = {
    **dict.fromkeys(("up", "succeeded", "ok"), "green"),
    **dict.fromkeys(("draining", "stale", "waiting", "delayed", "warning", "cancelled", "expired"), "yellow"),
    **dict.fromkeys(("lost", "down", "failed", "timed_out", "missing"), "red"),
    **dict.fromkeys(("placed", "running"), "cyan"),
}

#: Characters that the last column of a table wants to have beside the others; with less it goes below them.
_LEAST_BESIDE = 30
_GAP = "  "

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def json_option(command: F) -> F:
    """The option `--json`, which every command has; its argument is `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value and nothing else.")(
        command
    )


def print_json(value: Any) -> None:
    """One JSON value, indented."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def console() -> Console:
    """Where tables go: standard output; without colours when it is no terminal."""
    return Console(highlight=False, soft_wrap=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, title: str = "") -> None:
    """A table. A column whose name begins with `>` is aligned to the right; one with `*` never shrinks.

    Where the last column is the only one that may shrink, and there is little room for it, it is shown below each row.
    """
    # As Text, so that square brackets in names are no markup.
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    widths = [max(len(name.lstrip(">*")), *(row[i].cell_len for row in cells), 0) for i, name in enumerate(columns)]
    beside = console().width - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)
    fixed = ["*" in name for name in columns]
    if all(fixed[:-1]) and not fixed[-1] and beside < min(widths[-1], _LEAST_BESIDE):
        _print_in_two_lines(columns, cells, widths, title=title)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", title=title or None, title_justify="left")
    for column in columns:
        name = column.lstrip(">*")
        table.add_column(
            name, justify="right" if ">" in column else "left", no_wrap="*" in column, overflow="fold"
        )
    for row in cells:
        table.add_row(*row)
    console().print(table)


def _print_in_two_lines(
    columns: Sequence[str], cells: Sequence[Sequence[Text]], widths: Sequence[int], *, title: str
) -> None:
    """The same table with the last column below the others, indented."""
    out = console()
    names = [Text(name.lstrip(">*"), style="bold") for name in columns]
    if title:
        out.print(Text(title, style="italic"))
    for row in (names, *cells):
        first = Text()
        for cell, column, width in zip(row[:-1], columns, widths, strict=False):
            blank = " " * (width - cell.cell_len)
            first.append_text(Text.assemble(blank, cell) if ">" in column else Text.assemble(cell, blank))
            first.append(_GAP)
        first.rstrip()
        out.print(first)
        if row[-1].plain:
            out.print(Padding(row[-1], (0, 0, 0, len(_GAP)), expand=False))


def print_fields(fields: Mapping[str, str | Text]) -> None:
    """Names and values in two columns; empty values are left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value:
            table.add_row(name, value if isinstance(value, Text) else Text(value))
    console().print(table)


def heading(text: str) -> None:
    """A line above a part of the output."""
    console().print(Text(f"\n{text}", style="bold underline"))


def line(text: str) -> None:
    """A plain line, wrapped to the terminal."""
    console().print(Text(text))


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(state, style=_STYLES.get(state, ""))


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, or "?" when it is not known."""
    if value is None or value != value:
        return "?"
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """A span of time: "850ms", "4.2s", "3m12s", "2h05m", "3d4h"."""
    if seconds is None or seconds != seconds:
        return "?"
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR}h"


def moment(epoch_s: float | None) -> str:
    """A moment in local time, with milliseconds; "" for none."""
    if not epoch_s:
        return ""
    return datetime.fromtimestamp(epoch_s).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def from_now(then: float, now: float) -> str:
    """A moment as seen from now: "in 4.2s", "3m12s ago"."""
    return f"in {duration(then - now)}" if then >= now else f"{duration(now - then)} ago"


def percent(share: float | None) -> str:
    """A share of 1 in per cent; "?" when it is not known."""
    return "?" if share is None else f"{share * 100:.1f} %"
