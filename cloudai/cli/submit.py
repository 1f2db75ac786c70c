"""`cloudai submit`: a container job from the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from celery import states

from cloudai.cli import given
from cloudai.cli.application import application
from cloudai.cli.fleet_report import resolve_node
from cloudai.cli.output import duration, from_now, json_option, print_json
from cloudai.cli.result_report import advice_text, error_text
from cloudai.cli.task_report import task_report
from cloudai.containers.errors import ContainerFailed, TimeLimitReached
from cloudai.job_output import container_record, stream_output
from cloudai.names import CANCELLED, CONTAINER_TASK, FAILED, SUCCEEDED, TIMED_OUT
from cloudai.scheduling.task_types import TASK_TYPES

if TYPE_CHECKING:
    from celery.result import AsyncResult

    from cloudai.app import CloudAI

#: Most jobs of one command.
_MOST_JOBS = 100_000


@click.command()
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--cpu", metavar="CORES", help="Cores, such as 2 or 0.5.")
@click.option("--memory", metavar="SIZE", help="Memory, such as 4GiB or 512MiB.")
@click.option("--gpu", metavar="DEVICES", help="GPUs: a whole number, or a fraction of one.")
@click.option("--storage", metavar="SIZE", help="Disk, such as 20GiB.")
@click.option(
    "--type", "task_type", metavar="TYPE", help=f"One of {', '.join(TASK_TYPES)}.  [default: inferred]"
)
@click.option(
    "--deadline", metavar="WHEN", help="10m from now, or 2027-01-31T18:00+01:00.  [default: by tau]"
)
@click.option("--family", help="Label of jobs that run alike.")
@click.option("--user", "user_id", help="Whose job it is.")
@click.option("--node", help="Run on this node only.")
@click.option("--label", "labels", metavar="NAME=VALUE", multiple=True, help="Label that the node must have.")
@click.option(
    "--unplaceable", metavar="wait|reject", help="When no node could ever hold it.  [default: wait]"
)
@click.option("--env", "env", metavar="NAME=VALUE", multiple=True, help="Environment of the container.")
@click.option(
    "--secret", "secrets", metavar="NAME=REF", multiple=True, help="env:NAME or file:/path on the node."
)
@click.option(
    "--volume", "volumes", metavar="HOST:BIND[:rw]", multiple=True, help="Folder of the node to mount."
)
@click.option(
    "--input", "inputs", metavar="PATH=URL", multiple=True, help="Folder to fetch to PATH in the container."
)
@click.option(
    "--output", "outputs", metavar="PATH=URL", multiple=True, help="Folder PATH in the container to keep at URL."
)
@click.option("--network", help="none, bridge, or one that the operator allows.  [default: none]")
@click.option("--workdir", help="Working directory in the container.")
@click.option("--pull", metavar="missing|always|never", help="When to fetch the image.  [default: missing]")
@click.option("--timeout", metavar="SPAN", help="Longest run, such as 30m.")
@click.option(
    "--count", type=click.IntRange(1, _MOST_JOBS), default=1, help="Submit so many jobs of this kind."
)
@click.option("--wait", is_flag=True, help="Wait for the end; exit with the job's exit code.")
@click.option("--follow", is_flag=True, help="Show the output while it runs, and wait for the end.")
@json_option
@click.pass_context
def submit(
    ctx: click.Context, /, as_json: bool, wait: bool, follow: bool, count: int, **options: Any
) -> None:
    """Submit a container job: cloudai submit [OPTIONS] IMAGE -- COMMAND...

    Without a command the image's own one runs. Prints the task's id and its node, or what it waits for.
    """
    if follow and count > 1:
        raise click.UsageError("--follow shows the output of one job; leave --count out")
    app = application(ctx)
    task = app.tasks[CONTAINER_TASK]
    container, asked = _container(options), _asked(app, options)
    submitted = [task.apply_async(kwargs=container, **asked) for _ in range(count)]
    reports = [_placement(app, result.id) for result in submitted]
    if not as_json:
        for report in reports:
            click.echo(_sentence(report))
    if follow:
        _follow(app, submitted[0].id, as_json=as_json)
    code = 0
    if wait or follow:
        for report, result in zip(reports, submitted, strict=True):
            _wait(app, result, report)
            if not as_json:
                _print_result(report, output=not follow, name=count > 1)
        code = next((report["exit_code"] for report in reports if report["exit_code"]), 0)
    if as_json:
        print_json(reports[0] if count == 1 else {"tasks": reports})
    ctx.exit(code)


def _container(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `run_container`; what was not given is left out."""
    timeout = options["timeout"]
    container = {
        "image": options["image"],
        "command": list(options["command"]),
        "env": given.pairs(options["env"], "env"),
        "secrets": given.pairs(options["secrets"], "secrets"),
        "volumes": given.volumes(options["volumes"]),
        "inputs": given.pairs(options["inputs"], "inputs"),
        "outputs": given.pairs(options["outputs"], "outputs"),
        "network": options["network"],
        "workdir": options["workdir"],
        "pull": options["pull"],
        "timeout": given.span_s(timeout, "timeout") if timeout is not None else None,
    }
    return {name: value for name, value in container.items() if value not in (None, [], {})}


def _asked(app: CloudAI, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `apply_async`."""
    resources = {name: given.amount(options[name]) for name in ("cpu", "memory", "gpu", "storage")}
    node = options["node"]
    asked = {
        "resources": {name: value for name, value in resources.items() if value is not None},
        "task_type": options["task_type"],
        "deadline": given.deadline(options["deadline"]),
        "family": options["family"],
        "user_id": options["user_id"],
        "target_worker_id": resolve_node(app.deployment.fleet, node) if node is not None else None,
        "constraints": given.pairs(options["labels"], "label", secret=False) or None,
        "unplaceable": options["unplaceable"],
    }
    return {name: value for name, value in asked.items() if value is not None}


def _placement(app: CloudAI, task_id: str) -> dict[str, Any]:
    """Where the task is now; the keys that `--json` has for each job."""
    report = task_report(app.deployment, task_id)
    why = report["waits_because"]
    return {
        "task_id": task_id,
        "state": report["state"],
        "node": report["node"],
        "type": report["type"],
        "deadline": report["deadline"],
        "deadline_in_s": round(report["deadline"] - report["now"], 3),
        "predicted_s": report["predicted"],
        "waits_because": why["text"] if why else "",
    }


def _sentence(report: Mapping[str, Any]) -> str:
    due = f"deadline {from_now(report['deadline_in_s'], 0.0)}"
    if report["waits_because"]:
        return f"{report['task_id']}  waits ({due}): {report['waits_because']}"
    predicted = f"predicted {duration(report['predicted_s'])}, " if report["predicted_s"] else ""
    return f"{report['task_id']}  {report['state']} on {report['node']} ({report['type']}, {predicted}{due})"


def _follow(app: CloudAI, task_id: str, *, as_json: bool) -> None:
    """Show what the job writes until it ends. Under `--json` standard output is for the one value."""
    out = sys.stderr.buffer if as_json else sys.stdout.buffer
    for chunk in stream_output(app, task_id, follow=True):
        out.write(chunk)
        out.flush()


def _wait(app: CloudAI, result: AsyncResult, report: dict[str, Any]) -> None:
    """Wait for the end of one task and note in its report how it ended."""
    value = result.get(propagate=False)
    record = container_record(value)
    error = error_text(value)
    code = record["exit_code"] if record else 0
    report["state"] = _ended_as(str(result.state), value)
    report["waits_because"] = ""
    report["node"] = record["node"] if record else report["node"]
    report["result"] = record
    report["error"] = error
    report["advice"] = advice_text(value)
    # An error whose job ended with 0, or never ran, is no success.
    report["exit_code"] = code or (1 if error else 0)


def _ended_as(celery_state: str, value: Any) -> str:
    """The ledger's name of the end, from the result: the ledger itself hears of it a moment later."""
    if celery_state == states.SUCCESS:
        return SUCCEEDED
    if celery_state == states.REVOKED:
        return CANCELLED
    return TIMED_OUT if isinstance(value, TimeLimitReached) else FAILED


def _print_result(report: Mapping[str, Any], *, output: bool, name: bool) -> None:
    record = report["result"]
    if output and record is not None:
        click.echo(record["stdout_tail"], nl=False)
        click.echo(record["stderr_tail"], nl=False, err=True)
    label = f"{report['task_id']}: " if name else ""
    ran = f", ran {duration(record['run_s'])} on {record['node']}" if record is not None else ""
    click.echo(f"{label}{report['error'] or report['state']}{ran}", err=True)
    # A job that reports failure has just said why.
    if report["advice"] and not report["error"].startswith(ContainerFailed.__name__):
        click.echo(f"{label}{report['advice']}", err=True)
