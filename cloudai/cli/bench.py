"""`cloudai bench`: the figures that the project promises, measured here and now."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
from rich.text import Text

from cloudai.bench.figures import Promise, Row
from cloudai.bench.lab import Lab
from cloudai.bench.run import chosen, run
from cloudai.cli.output import json_option, number, print_json, print_table
from cloudai.scheduling.errors import InvalidRequest


@click.command()
@click.option("--only", metavar="NAME-PATTERN", help="Rows whose name holds this (* and ? as in a shell).")
@click.option("--quick", is_flag=True, help="Fewer rounds: rougher figures.")
@click.option("--profile", is_flag=True, help="Say where the time of these rows goes; measure nothing.")
@click.option(
    "--traces",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    envvar="CLOUDAI_TRACES",
    metavar="FOLDER",
    help="Logs of jobs for the rows of `simulate` (or CLOUDAI_TRACES).  [default: synthetic ones]",
)
@json_option
def bench(only: str | None, quick: bool, profile: bool, traces: Path | None, as_json: bool) -> None:
    """Measure speed against plain Celery, the Docker SDK and fixed goals, each in the same run.

    Starts servers, workers and containers of its own and ends them. The exit code is 1 when a row could not
    be measured; a goal that is missed is only shown.
    """
    promises = chosen(only)
    with tempfile.TemporaryDirectory(prefix="cloudai-bench-") as folder:
        lab = Lab(Path(folder), quick=quick, traces=traces)
        if profile:
            _print_profiles(promises, lab, as_json=as_json)
            return
        rows = run(promises, lab, lambda name: click.echo(f"{name} ...", err=True))
    if as_json:
        print_json({"rows": [row.to_json() for row in rows]})
    else:
        print_table(("*row", ">*value", ">*goal", "*met", "against"), [_cells(row) for row in rows])
    if any(row.value is None for row in rows):
        sys.exit(1)


def _print_profiles(promises: list[Promise], lab: Lab, *, as_json: bool) -> None:
    found = {promise.name: promise.profile(lab) for promise in promises if promise.profile is not None}
    if not found:
        names = ", ".join(promise.name for promise in chosen(None) if promise.profile is not None)
        raise InvalidRequest("only", promises[0].name, f"with --profile one of {names}")
    if as_json:
        print_json({"profiles": found})
        return
    for name, text in found.items():
        click.echo(f"{name}\n{text}")


def _cells(row: Row) -> tuple[str | Text, ...]:
    met = Text("yes", style="green") if row.met else Text("no", style="red")
    bound = "at most" if row.better == "lower" else "at least"
    return (row.name, number(row.value), f"{bound} {number(row.goal)}", met, row.reference)
