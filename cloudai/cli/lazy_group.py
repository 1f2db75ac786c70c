"""A click group whose commands are imported when they are asked for, and that tells errors plainly."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from cloudai.cli.telling import telling_errors

#: The package's own modules: one of them missing is a defect, not a missing extra.
_OWN = ("cloudai", "cloudai_workers", "cloudai_beat")


#: Path of a command that is found by the entry point of its name in the group COMMANDS.
ENTRY_POINT = "entry-point:"
#: Group of the entry points of commands that this package must not import.
COMMANDS = "cloudai.commands"


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is, and what `--help` says of it before it is loaded."""

    #: "module:attribute", or ENTRY_POINT for a command that another package of the distribution brings.
    path: str
    #: One line.
    summary: str
    #: Extra that brings what its module imports, "" if the base package does.
    extra: str = ""


class LazyGroup(click.Group):
    """A group with a table of commands. An error below it is one message, or one JSON value with `--json`."""

    def __init__(self, *args: Any, commands_table: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_table = dict(commands_table)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the table's order."""
        return list(self.commands_table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded now; None when there is none of that name.

        Raises:
            click.ClickException: what it needs is not installed.
        """
        entry = self.commands_table.get(cmd_name)
        if entry is None:
            return None
        try:
            command: click.Command = _load(cmd_name, entry.path)
        except ImportError as error:
            raise click.ClickException(_what_is_missing(cmd_name, entry, error)) from error
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's; a misspelt name is told with the one that is meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            close = difflib.get_close_matches(args[0], self.commands_table, n=1)
            if not close or args[0] in self.commands_table:
                raise
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {close[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list, from the table: nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.commands_table.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; a mistake in the group's own options is told like any other error."""
        with telling_errors(ctx, args):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; errors of the command are told, and end the program with their exit code."""
        with telling_errors(ctx, [*ctx._protected_args, *ctx.args]):
            return super().invoke(ctx)


def _load(name: str, path: str) -> Any:
    if path != ENTRY_POINT:
        module_name, _, attribute = path.partition(":")
        return getattr(importlib.import_module(module_name), attribute)
    for found in importlib.metadata.entry_points(group=COMMANDS, name=name):
        return found.load()
    raise ImportError(f"no entry point {name} in the group {COMMANDS}: install the package again")


def _what_is_missing(name: str, entry: LazyCommand, error: ImportError) -> str:
    missing = (error.name or "").partition(".")[0]
    if missing in _OWN or not missing:
        return f"`cloudai {name}` cannot be loaded: {error}"
    extra = entry.extra or "all"
    return f"`cloudai {name}` needs {missing}, which is not installed: pip install 'cloudai[{extra}]'"
