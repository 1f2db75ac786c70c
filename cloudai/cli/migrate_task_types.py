"""`cloudai migrate-task-types`: old task types of the history, brought to the six of today (spec section 9)."""

from __future__ import annotations

import click

from cloudai.cli.application import deployment
from cloudai.cli.output import heading, json_option, line, print_json, print_table
from cloudai.history.migration import Migrated, migrate_task_types
from cloudai.history.store import HistoryStore
from cloudai.scheduling.task_types import TASK_TYPES


@click.command(name="migrate-task-types")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@json_option
@click.pass_context
def command(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Give every task of the history one of the six types. May be repeated, also while recorders run."""
    with HistoryStore.from_settings(deployment(ctx).settings) as store:
        report = migrate_task_types(store, dry_run=dry_run)
        where = store.where
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "changed": sum(done.changed for done in report.values()),
                "collections": {name: _as_json(done) for name, done in report.items()},
            }
        )
        return
    for name, done in report.items():
        heading(name)
        _print(done, dry_run)
    click.echo()
    if dry_run:
        line(f"Nothing was changed ({where}).")
    else:
        line(f"Done ({where}).")


def _as_json(done: Migrated) -> dict[str, object]:
    return {
        "read": done.read,
        "changed": done.changed,
        "before": dict(done.before),
        "after": dict(done.after),
        "unreadable": dict(done.unreadable),
    }


def _print(done: Migrated, dry_run: bool) -> None:
    line(f"{done.read} read, {done.changed} {'would change' if dry_run else 'changed'}")
    known = [str(kind) for kind in TASK_TYPES]
    labels = [*known, *sorted((done.before | done.after).keys() - set(known))]
    print_table(
        ["*type", ">*before", ">*after"],
        [
            [label, str(done.before[label]), str(done.after[label])]
            for label in labels
            if done.before[label] or done.after[label]
        ],
    )
    for reason, count in done.unreadable.items():
        line(f"{count} left as they are: {reason}")
