"""What the programs and the short tests of the campaigns (tests/faults, tests/scale) have in common."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

ROOT = Path(__file__).resolve().parents[1]


class Judged(Protocol):
    """What a campaign found."""

    #: Required zeros that are not.
    broken: list[str]


V = TypeVar("V", bound=Judged)


def conclude(
    name: str,
    run: Callable[[Path, Callable[[str], None]], V],
    table: Callable[[V], str],
    to_json: Callable[[V], dict[str, Any]],
    *,
    keep: bool,
    as_json: bool,
) -> int:
    """Run a campaign, show what it found, and return the exit code.

    Args:
        name: of the campaign, for its folder.
        run: given a folder for logs and whom to tell what happens.
        table: for people.
        to_json: the last line of the output, with `as_json`.
        keep: the logs also when all is as required.
        as_json: print one JSON object last.

    """
    # Ended as by Ctrl-C: what it started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(tempfile.mkdtemp(prefix=f"cloudai-{name}-"))
    verdict = run(folder, lambda line: print(line, flush=True))
    print(table(verdict), flush=True)
    if verdict.broken or keep:
        print(f"logs: {folder}", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        print(json.dumps(to_json(verdict)), flush=True)
    return 1 if verdict.broken else 0


def short_run(module: str, tmp_path: Path, timeout_s: float) -> tuple[dict[str, Any], str]:
    """Run the short version of a campaign in a process; what it found, and what it said besides."""
    ran = subprocess.run(
        [sys.executable, "-m", module, "--short", "--json"],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    *shown, last = ran.stdout.splitlines() or [""]
    report = "\n".join([*shown, ran.stderr])
    assert last.startswith("{"), report
    return json.loads(last), report
