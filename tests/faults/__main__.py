"""The fault campaign: a real cluster under load, with its parts killed, stopped, cut off and filled up.

    python -m tests.faults [--seed N] [--short] [--json] [--jobs N] [--keep]

Prints a table, and with --json one object last; exits with 1 when a count that must be zero is not. What is counted is
in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from .campaign import Campaign
from .plan import full_plan, short_plan
from .verdict import judge, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Kill things, and count what is lost.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="half a minute of it; needs no root and no engine")
    parser.add_argument("--jobs", type=int, default=0, help="submissions that must be accepted")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--keep", action="store_true", help="keep the logs also when all is as required")
    asked = parser.parse_args()
    plan = short_plan(asked.seed, asked.jobs or 50) if asked.short else full_plan(asked.seed, asked.jobs or 540)
    # Ended as by Ctrl-C: what it started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(tempfile.mkdtemp(prefix="cloudai-faults-"))
    verdict = judge(Campaign(plan, folder, lambda line: print(line, flush=True)).run())
    print(table(verdict), flush=True)
    if verdict.broken or asked.keep:
        print(f"logs: {folder}", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    if asked.json:
        print(json.dumps(verdict.to_json()), flush=True)
    return 1 if verdict.broken else 0


if __name__ == "__main__":
    sys.exit(main())
