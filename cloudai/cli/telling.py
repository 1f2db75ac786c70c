"""How errors are told: one message without a traceback, or one JSON value; and the exit code.

2: what was given is wrong (correct it and try again). 1: everything else that went wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import click

from cloudai.cli.application import connection_advice
from cloudai.scheduling.errors import CloudAIError

BAD_INPUT = 2
FAILED = 1


@contextmanager
def telling_errors(ctx: click.Context, args: Sequence[str]) -> Iterator[None]:
    """Tell what the block raises and exit. `args`: the command line, to see whether JSON is wanted."""
    as_json = "--json" in (args[: args.index("--")] if "--" in args else args)
    try:
        yield
    except click.exceptions.Exit:
        raise
    except click.ClickException as error:
        if not as_json:
            raise
        _tell(ctx, error.format_message(), error.exit_code, as_json=True)
    except click.Abort:
        if not as_json:
            raise
        _tell(ctx, "interrupted", FAILED, as_json=True)
    except CloudAIError as error:
        # Errors about what was given are ValueErrors too: InvalidRequest, InvalidParameters and others.
        code = BAD_INPUT if isinstance(error, ValueError) else FAILED
        _tell(ctx, str(error), code, as_json=as_json)
    except OSError as error:
        # A pipe that was closed (`cloudai nodes | head`) is nobody's mistake; click knows what to do.
        if isinstance(error, BrokenPipeError):
            raise
        _tell(ctx, str(error), FAILED, as_json=as_json)
    except Exception as error:
        advice = connection_advice(ctx, error)
        if advice is None:
            raise
        _tell(ctx, advice, FAILED, as_json=as_json)


def _tell(ctx: click.Context, message: str, code: int, *, as_json: bool) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"error": message}))
    else:
        click.echo(f"Error: {message}", err=True)
    ctx.exit(code)
