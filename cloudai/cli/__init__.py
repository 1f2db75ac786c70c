"""The commands: `cloudai X`, and the same under Celery's own program as `celery -A proj cloudai X`.

Each command is loaded when it is asked for, so that `cloudai --help` is quick and a missing extra stops only
the command that needs it.
"""

from __future__ import annotations

import click

import cloudai as package
from cloudai.cli.lazy_group import ENTRY_POINT, LazyCommand, LazyGroup

_COMMANDS = {
    "init": LazyCommand("cloudai.cli.init:init", "Write a commented cloudai.toml."),
    "up": LazyCommand(
        "cloudai.cli.up:up", "Start a cluster on this machine: Valkey, nodes, control, Flower.", extra="local"
    ),
    "demo": LazyCommand(
        "cloudai.cli.demo:demo", "Run jobs of all six types on a local cluster.", extra="local"
    ),
    "bench": LazyCommand("cloudai.cli.bench:bench", "Measure speed against plain Celery.", extra="local"),
    "simulate": LazyCommand(ENTRY_POINT, "Replay a log of jobs under each policy: would it have helped?", extra="beat"),
    "doctor": LazyCommand("cloudai.cli.doctor:doctor", "Say what is missing here and what to do."),
    "submit": LazyCommand("cloudai.cli.submit:submit", "Submit a container job."),
    "status": LazyCommand("cloudai.cli.status:status", "Fleet and queue at a glance."),
    "nodes": LazyCommand("cloudai.cli.nodes:nodes", "List the nodes: state, what is free, load."),
    "explain": LazyCommand(
        "cloudai.cli.explain:explain", "Say why a task went where it went, or why it waits."
    ),
    "pending": LazyCommand("cloudai.cli.pending:pending", "List the waiting tasks with what they wait for."),
    "logs": LazyCommand("cloudai.cli.logs:logs", "Show the output of a container job."),
    "cancel": LazyCommand("cloudai.cli.cancel:cancel", "Cancel tasks, in whatever state they are."),
    "drain": LazyCommand("cloudai.cli.drain:drain", "Let a node finish what runs and take nothing new."),
    "tau": LazyCommand("cloudai.cli.tau:tau", "Show, set or look back at the learned runtimes."),
    "params": LazyCommand("cloudai.cli.params:params", "Show, load, export or compare the parameters."),
    "acl": LazyCommand("cloudai.cli.acl:acl", "Print Redis ACL profiles for the processes of a deployment."),
    "epoch": LazyCommand(ENTRY_POINT, "Run the optimiser's epoch now, or show what the latest did.", extra="beat"),
    "metrics": LazyCommand("cloudai.cli.metrics:metrics", "Serve metrics to Prometheus.", extra="metrics"),
    "migrate-task-types": LazyCommand(
        "cloudai.cli.migrate_task_types:command",
        "Bring old task types of the history to those of today.",
        extra="beat",
    ),
}


@click.group(cls=LazyGroup, commands_table=_COMMANDS)
@click.version_option(package.__version__, prog_name="cloudai")
@click.option(
    "-A",
    "--app",
    "app_path",
    metavar="MODULE[:NAME]",
    envvar="CLOUDAI_APP",
    help="The project's application.  [default: cloudai, the ready-made one]",
)
@click.pass_context
def cloudai(ctx: click.Context, app_path: str | None) -> None:
    """Send each job to the machine where it will most likely finish in time."""
    ctx.meta["cloudai.app_path"] = app_path


def main() -> None:
    """Entry point of the program `cloudai`."""
    cloudai(prog_name="cloudai")
