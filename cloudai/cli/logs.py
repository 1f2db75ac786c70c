"""`cloudai logs`: the output of a container job."""

from __future__ import annotations

import sys

import click

from cloudai.cli.application import application
from cloudai.cli.output import json_option, print_json
from cloudai.job_output import stream_output


@click.command()
@click.argument("task_id")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended; wait if it has not begun.")
@json_option
@click.pass_context
def logs(ctx: click.Context, task_id: str, follow: bool, as_json: bool) -> None:
    """Show the output of TASK_ID: of a running job from its node, of an ended one what was kept.

    An ended job's whole output is there where its node keeps it (node.log_dir); else the end of each stream,
    as in the result. Programs get the text as one JSON value at the end.
    """
    chunks = stream_output(application(ctx), task_id, follow=follow)
    if as_json:
        print_json({"task_id": task_id, "output": b"".join(chunks).decode("utf-8", "replace")})
        return
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
