"""How a mistake in the configuration is told under Celery's own program (`celery -A proj worker|beat|flower`).

That program shows whatever an application raises below a traceback, which hides the one line that says what to correct.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cloudai.settings.errors import ConfigurationError


@contextmanager
def mistakes_told_plainly() -> Iterator[None]:
    """Where Celery's program waits for the block, its ConfigurationError ends the program: one message, exit code 2.

    Everywhere else, in a task's body too, it is raised as it is. (Celery catches every Exception of a module that it
    loads: only SystemExit gets past its traceback.)
    """
    try:
        yield
    except ConfigurationError as error:
        if not _awaited_by_celery():
            raise
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _awaited_by_celery() -> bool:
    """Whether this thread is that of Celery's program, loading an application or starting a command of Celery's."""
    program = sys.modules.get("celery.bin.celery")
    if program is None:
        return False
    import click
    from celery import current_task

    context = click.get_current_context(silent=True)
    if context is None or context.find_root().command is not program.celery or current_task:
        return False
    root = context.find_root()
    # Our own commands below `celery -A proj cloudai` tell errors themselves, as soon as the application is loaded.
    return root.obj is None or root.invoked_subcommand != "cloudai"
