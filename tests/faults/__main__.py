"""The fault campaign: a real cluster under load, with its parts killed, stopped, cut off and filled up.

    python -m tests.faults [--seed N] [--short] [--json] [--jobs N] [--keep]

Prints a table, and with --json one object last; exits with 1 when a count that must be zero is not. What is counted is
in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import sys

from ..campaign_run import conclude
from .campaign import Campaign
from .plan import full_plan, short_plan
from .verdict import Verdict, judge, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Kill things, and count what is lost.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="half a minute of it; needs no root and no engine")
    parser.add_argument("--jobs", type=int, default=0, help="submissions that must be accepted")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--keep", action="store_true", help="keep the logs also when all is as required")
    asked = parser.parse_args()
    plan = short_plan(asked.seed, asked.jobs or 50) if asked.short else full_plan(asked.seed, asked.jobs or 540)
    return conclude(
        "faults", lambda folder, say: judge(Campaign(plan, folder, say).run()), table, Verdict.to_json,
        keep=asked.keep, as_json=asked.json,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
