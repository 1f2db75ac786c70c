"""How the ready-made applications tell a wrong setting."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudai.settings.errors import ConfigurationError


@contextmanager
def wrong_settings_told_plainly() -> Iterator[None]:
    """Under Celery's program, a ConfigurationError of the block is a message and exit code 2; elsewhere it is raised.

    Celery shows whatever an application's module raises below a traceback, which hides the one line that says which
    setting to correct.
    """
    try:
        yield
    except ConfigurationError as error:
        program = Path(sys.argv[0])
        if "celery" not in (program.stem, program.parent.name):
            raise
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
