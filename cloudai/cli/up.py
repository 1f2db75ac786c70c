"""`cloudai up`: a cluster on this machine, until it is told to end."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import click

from cloudai.cli.output import json_option, print_table
from cloudai.cli.runner_option import runner_option
from cloudai.demo.run import runner_line
from cloudai.local_cluster import STOP_TIMEOUT_S, LocalCluster
from cloudai.local_nodes import LocalNode, RunnerChoice, default_nodes, read_nodes
from cloudai.local_services import CONTROL, FLOWER, LocalServices
from cloudai.scheduling.errors import InvalidRequest
from cloudai.settings.sources import state_folder

#: Where the embedded Valkey listens unless told otherwise: beside Redis's own 6379.
PORT = 6390

#: Where the document store and Flower listen unless told otherwise: beside MongoDB's own 27017, and Flower's own.
MONGO_PORT = 27117
FLOWER_PORT = 5555

#: Time between two looks at the parts, seconds.
_LOOK_EVERY_S = 1.0


@click.command()
@click.option(
    "--nodes",
    default="3",
    show_default=True,
    metavar="N|FILE",
    help="How many nodes (small, medium, large in turn), or a TOML or JSON file that lists them: name, cpu, "
    "memory, gpus, storage, slots, labels.",
)
@runner_option
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where data and logs are; what waits there is taken up again.  "
    "[default: the platform's state folder]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port of the embedded Valkey on 127.0.0.1; 0 picks a free one.",
)
@click.option("--control/--no-control", default=True, help="With a document store and the control process.")
@click.option("--flower/--no-flower", default=True, help="With Flower.")
@click.option(
    "--mongo-port",
    type=click.IntRange(0, 65535),
    default=MONGO_PORT,
    show_default=True,
    help="Port of the document store on 127.0.0.1; 0 picks a free one.",
)
@click.option(
    "--flower-port",
    type=click.IntRange(0, 65535),
    default=FLOWER_PORT,
    show_default=True,
    help="Port of Flower on 127.0.0.1; 0 picks a free one.",
)
@json_option
@click.pass_context
def up(
    ctx: click.Context,
    nodes: str,
    runner: RunnerChoice,
    folder: Path | None,
    port: int,
    control: bool,
    flower: bool,
    mongo_port: int,
    flower_port: int,
    as_json: bool,
) -> None:
    """Start a cluster on this machine: an embedded Valkey and nodes of unequal, declared capacity; a document
    store with the control process, which records the history and tunes the parameters; and Flower.

    Its nodes run the application of -A, so they take your project's own tasks too. It runs until Ctrl-C or
    SIGTERM and then ends everything that it started. With --json one line is printed when it is ready: url,
    mongo_url, flower_url, runner, folder, pids, nodes.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    folder = folder or state_folder() / "up"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest("folder", str(folder), f"a folder that can be written ({error.strerror})") from None
    wanted = default_nodes(int(nodes)) if nodes.isdecimal() else read_nodes(Path(nodes))
    cluster = LocalCluster(
        folder,
        wanted,
        runner=runner,
        port=port,
        services=LocalServices(control, flower, mongo_port, flower_port),
        app=_app_path(ctx),
        # The nodes work in a folder of their own, and a project's module is often found by this one.
        environment={
            "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
        },
    )
    if not as_json:
        click.echo(runner_line(cluster))
        for name, why in cluster.services.left_out.items():
            click.echo(f"Without {name}: {why}")
        click.echo(f"Starting Valkey and {len(wanted)} nodes in {cluster.folder} ...")
    with cluster:
        _announce(cluster, wanted, as_json=as_json)
        told: set[str] = set()
        while not stop.wait(_LOOK_EVERY_S):
            for what in cluster.ended():
                if what not in told:
                    told.add(what)
                    click.echo(what, err=True)
            if not cluster.pids:
                click.echo("No node is left.", err=True)
                break
        if not as_json:
            click.echo(
                f"Ending: running jobs have {STOP_TIMEOUT_S:.0f} s; what waits is kept for the next `up`."
            )
    if not stop.is_set():
        ctx.exit(1)


def _app_path(ctx: click.Context) -> str:
    """What the nodes run: what `cloudai -A` was given, else the ready-made application.

    Raises:
        InvalidRequest: Celery's program was given a project's application; it keeps the object, not the path.
    """
    path = ctx.meta.get("cloudai.app_path")
    of_celery = getattr(ctx.obj, "app", None)
    if not path and of_celery is not None and of_celery.main not in ("default", "cloudai"):
        allowed = "its path, to start nodes with: `cloudai -A MODULE up`"
        raise InvalidRequest("app", f"the application {of_celery.main!r} of `celery -A`", allowed)
    return str(path or "cloudai")


def _announce(cluster: LocalCluster, nodes: Sequence[LocalNode], *, as_json: bool) -> None:
    services = cluster.services
    if as_json:
        ready = {
            "url": cluster.url,
            "mongo_url": services.mongo_url,
            "flower_url": services.flower_url,
            "runner": cluster.runner,
            "folder": str(cluster.folder),
            "pids": {
                "valkey": cluster.valkey_pid,
                "nodes": cluster.pids,
                "mongo": services.mongo_pid,
                "control": services.pid(CONTROL),
                "flower": services.pid(FLOWER),
            },
            "nodes": [{"name": node.full_name, **node.settings()} for node in nodes],
        }
        click.echo(json.dumps(ready))
        return
    print_table(
        ["node", ">cores", ">GiB", ">GPUs", ">slots", "labels", ">pid"],
        [
            (
                node.full_name,
                f"{node.cpu:g}",
                f"{node.memory:g}",
                str(node.gpus),
                str(node.slots),
                ", ".join(f"{key}={value}" for key, value in node.labels.items()),
                str(cluster.pids.get(node.full_name, "")),
            )
            for node in nodes
        ],
    )
    command = ["echo", "hello"]
    image = "debian:bookworm"
    history = f"\n  export CLOUDAI_OPTIMISER__MONGO_URL={services.mongo_url}" if services.mongo_url else ""
    if services.mongo_url:
        click.echo(f"\nDocument store: {services.mongo_url}. What the optimiser learns: `cloudai epoch history`.")
    if services.flower_url:
        click.echo(f"Flower: {services.flower_url}")
    click.echo(
        f"""
The cluster is up. In another terminal:

  export CLOUDAI_REDIS__URL={cluster.url}{history}
  cloudai submit {image} -- {" ".join(command)}
  cloudai nodes
  cloudai explain TASK_ID

Logs are in {cluster.folder / "logs"}. Ctrl-C ends everything."""
    )
