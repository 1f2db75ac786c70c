"""`cloudai simulate`: would this have helped me? A log of one's own, replayed under each policy."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import click

from cloudai.cli.output import json_option, line, print_json, print_table
from cloudai.parameters_file import load as load_parameters
from cloudai.scheduling.errors import InvalidRequest
from cloudai_beat.simulation.fleets import NODES_DEFAULT, NODES_MOST, SPREAD_DEFAULT, SPREAD_MOST, read_fleet
from cloudai_beat.simulation.report import TABLES, about, answer, columns, rows
from cloudai_beat.simulation.scenario import LOAD_DEFAULT, LOAD_MOST, Setting
from cloudai_beat.simulation.study import chosen_policies, study
from cloudai_beat.simulation.trace_files import read_trace

_PLOT_SUFFIXES = (".png", ".svg", ".pdf")
_SEEDS_MOST = 1000


@click.command()
@click.argument("trace")
@click.option("--nodes", type=int, help=f"Nodes of the fleet that is drawn.  [default: {NODES_DEFAULT}]")
@click.option(
    "--speed-spread", type=float, default=SPREAD_DEFAULT, show_default=True, help="Fastest over slowest node."
)
@click.option("--fleet", type=click.Path(path_type=Path), metavar="FILE", help="Nodes by hand: a TOML or JSON file.")
@click.option("--load", type=float, default=LOAD_DEFAULT, show_default=True, help="Offered load.")
@click.option("--k", type=float, help="Deadline over run time.  [default: the trace's, else 1.5 to 2.5]")
@click.option("--jobs", type=int, help="So many jobs in a row of the trace.  [default: all]")
@click.option("--seeds", type=int, default=3, show_default=True, help="Repetitions, each with draws of its own.")
@click.option("--policies", metavar="NAME,NAME", help="Or all.  [default: all but rts-tuned]")
@click.option("--params", type=click.Path(path_type=Path), metavar="FILE", help="Parameters of rts.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the misses.")
@json_option
def simulate(
    trace: str,
    nodes: int | None,
    speed_spread: float,
    fleet: Path | None,
    load: float,
    k: float | None,
    jobs: int | None,
    seeds: int,
    policies: str | None,
    params: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Replay TRACE under each policy: would this have helped me?

    TRACE is a CSV file (arrival_s, runtime_s, cpu; also memory_gib, gpu, storage_gib, user, family, limit_s,
    deadline_s, task_type), a log in the standard workload format (.swf), either also as .gz, or synthetic:burst,
    synthetic:steady, synthetic:mixed. Nothing is run and no server is needed.
    """
    _check_within("nodes", nodes, 1, NODES_MOST)
    _check_within("speed-spread", speed_spread, 1, SPREAD_MOST)
    _check_within("load", load, 0.001, LOAD_MOST)
    _check_within("k", k, 0.01, 1000)
    _check_within("jobs", jobs, 1, 10**9)
    _check_within("seeds", seeds, 1, _SEEDS_MOST)
    if nodes is not None and fleet is not None:
        raise InvalidRequest("nodes", nodes, "nothing beside --fleet, whose file says how many there are")
    if plot is not None:
        _check_plot(plot)
    compared = chosen_policies([name.strip() for name in policies.split(",") if name.strip()] if policies else [])
    setting = Setting(
        nodes=nodes if nodes is not None else NODES_DEFAULT,
        speed_spread=speed_spread,
        fleet=tuple(read_fleet(fleet)) if fleet is not None else None,
        load=load,
        k=k,
        jobs=jobs,
    )
    parameters = load_parameters(params) if params is not None else None
    found = study(
        read_trace(trace), setting, compared, seeds=seeds, parameters=parameters,
        tell=lambda text: click.echo(text, err=True),
    )  # fmt: skip
    if plot is not None:
        from cloudai_beat.simulation.plot import save_plot

        save_plot(found, plot)
    if as_json:
        print_json(found.to_json())
        if found.earlier_share:
            click.echo(about(found), err=True)
        return
    line(about(found))
    for metrics in TABLES:
        line("")
        print_table(columns(metrics), rows(found, metrics))
    if sentence := answer(found):
        line("\n" + sentence)
    if plot is not None:
        line(f"Drawn to {plot}.")


def _check_within(option: str, given: float | None, low: float, high: float) -> None:
    if given is not None and not (isfinite(given) and low <= given <= high):
        raise InvalidRequest(option, given, f"{low:g} to {high:g}")


def _check_plot(path: Path) -> None:
    """InvalidRequest, or click's error, before anything was replayed for nothing."""
    if path.suffix.lower() not in _PLOT_SUFFIXES:
        raise InvalidRequest("plot", str(path), f"a file whose name ends with {', '.join(_PLOT_SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise InvalidRequest("plot", str(path), "a file in a folder that is there")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise click.ClickException(
            f"--plot needs {error.name}, which is not installed: pip install 'cloudai[plot]'"
        ) from error
