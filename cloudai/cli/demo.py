"""`cloudai demo`: the main job on real input, judged."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click
from rich.console import Console

from cloudai.cli.output import console, json_option, print_json
from cloudai.cli.runner_option import runner_option
from cloudai.demo.run import FEWEST_JOBS, JOBS, DemoOptions, run_demo
from cloudai.demo.show import DemoShow, show_summary
from cloudai.local_nodes import RunnerChoice


@click.command()
@click.option(
    "--jobs",
    type=click.IntRange(FEWEST_JOBS, 10_000),
    default=JOBS,
    show_default=True,
    help="Jobs of both waves together.",
)
@runner_option
@click.option("--seed", type=int, default=1, show_default=True, help="Of the jobs' order and contents.")
@json_option
@click.pass_context
def demo(
    ctx: click.Context, jobs: int, runner: RunnerChoice, seed: int, as_json: bool
) -> None:
    """Run jobs of all six types in two waves on three unequal nodes, and judge what happened.

    The exit code is 1 if a job failed, was lost or ran twice, or if RTS fell back to Round-Robin for more
    than 10 % of the decisions.
    """
    signal.signal(signal.SIGTERM, _leave)
    # With --json, standard output holds the report and nothing else.
    told = Console(stderr=True, highlight=False) if as_json else console()
    with DemoShow(told) as show:
        report = run_demo(DemoOptions(jobs=jobs, runner=runner, seed=seed), show)
    if as_json:
        print_json(report.to_json())
    else:
        show_summary(report)
    if report.problems:
        ctx.exit(1)


def _leave(number: int, frame: Any) -> None:
    """Leave through every `with` block, so that what was started is ended in order."""
    sys.exit(128 + number)
