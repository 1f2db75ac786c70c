"""`cloudai tau history`: how the learned runtimes came to be what they are, as a table, JSON or a picture."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudai.cli.application import deployment
from cloudai.cli.given import span_s
from cloudai.cli.output import duration, json_option, line, moment, print_json, print_table
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.task_types import validate_task_type

if TYPE_CHECKING:
    from cloudai.history.records import TauSample

#: Points that are read for a picture or JSON at most, the newest.
_MOST = 100_000


@click.command(short_help="How tau changed.")
@click.argument("task_types", metavar="[TYPE...]", nargs=-1)
@click.option("--since", default="1d", show_default=True, metavar="SPAN", help="How far to look back.")
@click.option(
    "--limit", type=click.IntRange(1, _MOST), default=20, show_default=True, help="Lines to show, the newest."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw all of it into this picture.")
@json_option
@click.pass_context
def history(
    ctx: click.Context, task_types: tuple[str, ...], since: str, limit: int, plot: Path | None, as_json: bool
) -> None:
    """How tau changed, of TYPEs or of all: the last value of every ten seconds, and each that was set by hand."""
    from cloudai.history.store import HistoryStore

    kinds = [str(validate_task_type(kind)) for kind in task_types]
    now = time.time()
    begin = now - span_s(since, "since")
    with HistoryStore.from_settings(deployment(ctx).settings) as store:
        # The clocks of the servers may be ahead of ours.
        samples = store.tau_history(begin, now + 3600.0, task_types=kinds, limit=_MOST)
    if plot is not None:
        draw(samples, plot)
    if as_json:
        print_json({"since": begin, "samples": [_as_json(sample) for sample in samples]})
        return
    print_table(
        ["*when", "*type", ">*tau", ">*sigma", "learned from"],
        [
            [moment(sample.at), sample.task_type, duration(sample.tau), _sigma(sample),
             "set by hand" if sample.runtime is None else duration(sample.runtime)]
            for sample in samples[-limit:]
        ],
    )  # fmt: skip
    if len(samples) > limit:
        line(f"The newest {limit} of {len(samples)}; --limit, --since, --json and --plot show more.")
    elif not samples:
        line(f"No value of tau was recorded in the last {duration(now - begin)}.")
    if plot is not None:
        line(f"{plot} shows {len(samples)} values.")


def draw(samples: Sequence[TauSample], path: Path) -> None:
    """A picture of these values over time, one line a type; its format follows from the file's name.

    Raises:
        click.ClickException: matplotlib is not installed.
        InvalidRequest: the name's ending is no picture format.
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise click.ClickException(
            "`cloudai tau history --plot` needs matplotlib, which is not installed: pip install 'cloudai[plot]'"
        ) from error
    by_type: dict[str, list[TauSample]] = defaultdict(list)
    for sample in samples:
        by_type[sample.task_type].append(sample)
    figure: Any = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    for kind, values in sorted(by_type.items()):
        times = [datetime.fromtimestamp(sample.at) for sample in values]
        (drawn,) = axes.step(times, [sample.tau for sample in values], where="post", label=kind)
        by_hand = [sample for sample in values if sample.runtime is None]
        axes.plot(
            [datetime.fromtimestamp(sample.at) for sample in by_hand],
            [sample.tau for sample in by_hand],
            "o",
            color=drawn.get_color(),
        )
    axes.set(title="Learned runtimes (dots: set by hand)", ylabel="tau, s", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    if by_type:
        axes.legend()
    figure.autofmt_xdate()
    allowed = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.lstrip(".").lower() not in allowed:
        raise InvalidRequest("plot", path.name, f"a file name that ends in one of: {', '.join(allowed)}")
    figure.savefig(path)


def _as_json(sample: TauSample) -> dict[str, Any]:
    return {
        "at": sample.at,
        "type": sample.task_type,
        "tau_s": sample.tau,
        "sigma_s": _root(sample.variance),
        "runtime_s": sample.runtime,
        "by_hand": sample.runtime is None,
    }


def _root(variance: float | None) -> float | None:
    return None if variance is None or variance < 0 else float(variance**0.5)


def _sigma(sample: TauSample) -> str:
    spread = _root(sample.variance)
    return "" if spread is None else duration(spread)
