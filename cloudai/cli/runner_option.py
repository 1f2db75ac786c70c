"""The option `--runner` of the commands that start nodes on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from cloudai.local_nodes import RunnerChoice

F = TypeVar("F", bound=Callable[..., Any])


def runner_option(command: F) -> F:
    """Add it; its argument is `runner`, a `RunnerChoice`."""
    return click.option(
        "--runner",
        type=click.Choice(get_args(RunnerChoice)),
        default="auto",
        show_default=True,
        help="auto: Docker where an engine answers, else local processes.",
    )(command)
