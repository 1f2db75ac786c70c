"""`cloudai params`: the parameters in force, and as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cloudai.cli.application import deployment
from cloudai.cli.output import (
    heading,
    json_option,
    line,
    moment,
    number,
    print_fields,
    print_json,
    print_table,
)
from cloudai.deployment import Deployment
from cloudai.history.records import PublishedParameters
from cloudai.parameters_file import load as load_file
from cloudai.parameters_file import save as save_file
from cloudai.scheduling.errors import InvalidParameters, InvalidRequest
from cloudai.scheduling.parameters import GAParams, differences

_FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))

#: Lines of differences that are shown.
_MOST_LINES = 200

_GROUPS = {
    "theta (cpu, memory, gpu, load)": ("theta1", "theta2", "theta3", "theta4"),
    "risk (alpha, beta)": ("alpha", "beta"),
    "affinity (speed, SLA, overload)": ("a1", "a2", "a3"),
    "penalty (SLA, overload, energy)": ("g1", "g2", "g3"),
    "dispatch order (margin, runtime, lateness)": ("order_margin", "order_runtime", "order_lateness"),
    "dispatch order (caution, safety)": ("order_caution", "order_safety"),
}


@click.group()
def params() -> None:
    """Show, load, export or compare the parameters of the score, and their history."""


@params.command()
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """The parameters in force, and where they came from."""
    state = deployment(ctx)
    parameters, source, published = _in_force(state)
    pinned = state.parameters.pinned()
    if as_json:
        values = json.loads(parameters.to_json())
        print_json(
            {
                "version": parameters.version, "source": source, "published": published, "pinned": pinned is not None,
                "parameters": values,
            }
        )  # fmt: skip
        return
    fields = {"version": str(parameters.version), "source": source, "published": moment(published)}
    if pinned is not None:
        fields["pinned by"] = f"{pinned}; epochs publish nothing"
    for title, names in _GROUPS.items():
        fields[title] = ", ".join(number(getattr(parameters, name)) for name in names)
    print_fields(fields)
    _print_tables(parameters)


@params.command()
@_FILE
@json_option
@click.pass_context
def load(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Put the parameters of FILE in force, as a whole or not at all."""
    state = deployment(ctx)
    parameters = load_file(file)
    try:
        before = _in_force(state)[0]
    except InvalidParameters:
        # What cannot be read is replaced; compare with what is used meanwhile.
        before = GAParams()
    version = state.parameters.publish(parameters, f"file {file.name}")
    changes = differences(before, parameters, _MOST_LINES)
    if as_json:
        print_json({"version": version, "changes": changes})
        return
    click.echo(f"Version {version} is in force; every process uses it {_within(state)}.")
    _print_changes(changes)


@params.command()
@_FILE
@json_option
@click.pass_context
def export(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Write the parameters in force to FILE, atomically."""
    parameters = _in_force(deployment(ctx))[0]
    save_file(file, parameters)
    if as_json:
        print_json({"written": str(file), "version": parameters.version})
    else:
        click.echo(
            f"{file} holds {f'version {parameters.version}' if parameters.version else 'the defaults'}."
        )


@params.command()
@_FILE
@json_option
@click.pass_context
def diff(ctx: click.Context, file: Path, as_json: bool) -> None:
    """What loading FILE would change. Exit code 0 whether or not there is a difference."""
    before = _in_force(deployment(ctx))[0]
    changes = differences(before, load_file(file), _MOST_LINES)
    if as_json:
        print_json({"in_force": before.version, "changes": changes})
    else:
        _print_changes(changes)


@params.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Versions, newest first.")
@json_option
@click.pass_context
def history(ctx: click.Context, limit: int, as_json: bool) -> None:
    """The versions that were put in force, and what each changed. From the history in MongoDB."""
    from cloudai.history.store import HistoryStore

    with HistoryStore.from_settings(deployment(ctx).settings) as store:
        # One more, for the oldest to be compared with.
        versions = _versions(store.parameters(limit + 1))[:limit]
    if as_json:
        print_json({"versions": versions})
        return
    print_table(
        ["*at", ">version", "*source", "what changed"],
        [
            [moment(version["at"]), str(version["version"]), version["source"], _shortened(version["changes"])]
            for version in versions
        ],
    )
    if not versions:
        line("No version is recorded. The control process records them; see docs/optimiser.md.")


@params.command()
@click.option("--to", "wanted", type=click.IntRange(1), help="The version to go back to.  [default: the one before]")
@json_option
@click.pass_context
def rollback(ctx: click.Context, wanted: int | None, as_json: bool) -> None:
    """Put an earlier version in force again, as a new version. Pin it, or the next epoch learns on from there."""
    state = deployment(ctx)
    before = _in_force(state)[0]
    earlier = _earlier(state, wanted)
    version = state.parameters.publish(earlier, f"rollback to {earlier.version}")
    state.parameters.keep_watch(None)
    changes = differences(before, earlier, _MOST_LINES)
    if as_json:
        print_json({"version": version, "back_to": earlier.version, "changes": changes})
        return
    again = f"version {earlier.version} again; every process uses it {_within(state)}"
    click.echo(f"Version {version} is in force: {again}.")
    _print_changes(changes)


@params.command(short_help="Keep what is in force from the optimiser.")
@json_option
@click.pass_context
def pin(ctx: click.Context, as_json: bool) -> None:
    """Keep what is in force: epochs go on learning and say what they would do, but publish nothing."""
    state = deployment(ctx)
    state.parameters.pin("the command line")
    version = _in_force(state)[0].version
    if as_json:
        print_json({"pinned": True, "version": version})
    else:
        what = f"Version {version} stays" if version else "The defaults stay"
        click.echo(f"{what} in force until `cloudai params unpin`.")


@params.command()
@json_option
@click.pass_context
def unpin(ctx: click.Context, as_json: bool) -> None:
    """Let epochs publish again."""
    state = deployment(ctx)
    was = state.parameters.unpin()
    if as_json:
        print_json({"pinned": False, "was_pinned": was})
    else:
        click.echo("Epochs publish again." if was else "Nothing was pinned.")


def _earlier(state: Deployment, wanted: int | None) -> GAParams:
    """An earlier version, from Redis, else from the history. InvalidRequest where there is none."""
    past = state.parameters.past()
    if wanted is None and past:
        return past[0].parameters
    known = {one.parameters.version: one.parameters for one in reversed(past)}
    if wanted in known:
        return known[wanted]
    if wanted is not None:
        from cloudai.history.errors import HistoryError
        from cloudai.history.store import HistoryStore

        try:
            with HistoryStore.from_settings(state.settings) as store:
                for one in store.parameters(1000):
                    if one.version == wanted:
                        return replace(GAParams.from_json(one.json), version=wanted)
        except HistoryError as error:
            click.echo(f"Versions before those in Redis are in the history only. {error}", err=True)
    shown = ", ".join(map(str, sorted(known))) or "none; at most one version was ever published"
    raise InvalidRequest("to", wanted or "the version before", f"an earlier version; known here: {shown}")


def _versions(published: Sequence[PublishedParameters]) -> list[dict[str, Any]]:
    """Each version with what it changed of the one before; one that cannot be read has no changes."""
    rows = []
    for i, one in enumerate(published):
        before = published[i + 1].json if i + 1 < len(published) else GAParams().to_json()
        try:
            changes = differences(GAParams.from_json(before), GAParams.from_json(one.json), _MOST_LINES)
        except InvalidParameters as error:
            changes = [f"cannot be read: {error}"]
        rows.append({"version": one.version, "source": one.source, "at": one.at, "changes": changes})
    return rows


def _shortened(changes: Sequence[str]) -> str:
    more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
    return "; ".join(changes[:3]) + more


def _in_force(state: Deployment) -> tuple[GAParams, str, float | None]:
    """Parameters, source, and when they were published (epoch s; None: never)."""
    published = state.parameters.read()
    if published is None:
        return GAParams(), "the defaults; none were published yet", None
    return published.parameters, published.source, published.published


def _within(state: Deployment) -> str:
    return f"within {state.settings.scheduling.params_reload_interval_s:g} s"


def _print_changes(changes: list[str]) -> None:
    for change in changes:
        line(f"  {change}")
    if not changes:
        line("Nothing differs from what is in force.")


def _print_tables(parameters: GAParams) -> None:
    by_node: dict[str, dict[str, float]] = {}
    for kind, row in parameters.affinity.items():
        for node, value in row.items():
            by_node.setdefault(node, {})[kind] = value
    for node, value in parameters.penalty.items():
        by_node.setdefault(node, {})["penalty"] = value
    if by_node:
        heading("Affinity by type, and penalty")
        _print_matrix(by_node, [*parameters.affinity, "penalty"])
    speeds: dict[str, dict[str, float]] = {}
    for kind, row in parameters.speed.items():
        for node, value in row.items():
            speeds.setdefault(node, {})[kind] = value
    if speeds:
        heading("Speed factors by type (1: the reference node)")
        _print_matrix(speeds, list(parameters.speed))
    if parameters.base:
        heading("Base factors")
        line(", ".join(f"{kind} {number(value)}" for kind, value in parameters.base.items()))


def _print_matrix(rows: Mapping[str, Mapping[str, Any]], columns: list[str]) -> None:
    print_table(
        ["*node", *(f">{column}" for column in columns)],
        [
            [node, *(number(row[column]) if column in row else "-" for column in columns)]
            for node, row in sorted(rows.items())
        ],
    )
