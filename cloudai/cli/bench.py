"""`cloudai bench`: the figures that the project promises, measured here and now."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
from rich.text import Text

from cloudai.bench import submission
from cloudai.bench.figures import Row
from cloudai.bench.lab import Lab
from cloudai.bench.run import chosen, run
from cloudai.cli.output import json_option, number, print_json, print_table


@click.command()
@click.option("--only", metavar="NAME-PATTERN", help="Measure the rows whose name holds this (* and ? as in a shell).")
@click.option("--quick", is_flag=True, help="Fewer rounds: rougher figures.")
@click.option("--profile", is_flag=True, help="Print where the time of apply_async goes, and measure nothing.")
@click.option("--nodes", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Fleet of --profile.")
@json_option
def bench(only: str | None, quick: bool, profile: bool, nodes: int, as_json: bool) -> None:
    """Measure speed against plain Celery, the Docker SDK and fixed goals, each in the same run.

    Starts servers, workers and containers of its own and ends them. The exit code is 1 when a row could not be
    measured; a goal that is missed is only shown.
    """
    promises = chosen(only)
    with tempfile.TemporaryDirectory(prefix="cloudai-bench-") as folder:
        lab = Lab(Path(folder), quick=quick)
        if profile:
            text = submission.profile(lab, nodes)
            print_json({"profile": text}) if as_json else click.echo(text)
            return
        rows = run(promises, lab, lambda name: click.echo(f"{name} ...", err=True))
    if as_json:
        print_json({"rows": [row.to_json() for row in rows]})
    else:
        print_table(("*row", ">*value", ">*goal", "*met", "against"), [_cells(row) for row in rows])
    if any(row.value is None for row in rows):
        sys.exit(1)


def _cells(row: Row) -> tuple[str | Text, ...]:
    met = Text("yes", style="green") if row.met else Text("no", style="red")
    bound = "at most" if row.better == "lower" else "at least"
    return (row.name, number(row.value), f"{bound} {number(row.goal)}", met, row.reference)
