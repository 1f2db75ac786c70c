"""The scale run: a thousand nodes and tens of thousands of tasks over one Redis, with nodes lost on the way.

    python -m tests.scale [--seed N] [--short] [--json] [--nodes N] [--jobs N] [--keep]

The nodes live in a few processes and run no containers; all else is the product's. Prints a table, and with --json one
object last; exits with 1 when a count that must be zero is not. What is counted is in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import sys

from ..campaign_run import conclude
from .campaign import Campaign
from .plan import full_plan, short_plan
from .verdict import judge, ratios, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description="Many nodes, many tasks, one Redis.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="ten seconds of it")
    parser.add_argument("--nodes", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=0, help="submissions of the burst")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--keep", action="store_true", help="keep the logs also when all is as required")
    asked = parser.parse_args()
    if asked.short:
        plan = short_plan(asked.seed, asked.nodes or 60, asked.jobs or 500)
    else:
        plan = full_plan(asked.seed, asked.nodes or 1000, asked.jobs or 25_000)
    return conclude(
        "scale", lambda folder, say: judge(Campaign(plan, folder, say).run()), table,
        lambda found: {**found.to_json(), "ratios": ratios(found)},
        keep=asked.keep, as_json=asked.json,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
