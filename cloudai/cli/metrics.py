"""`cloudai metrics`: the deployment's metrics for Prometheus."""

from __future__ import annotations

import threading

import click
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from redis.exceptions import RedisError

from cloudai.cli.application import connection_advice, deployment
from cloudai.cli.output import json_option, print_json
from cloudai.metrics import METRICS
from cloudai.metrics_collector import StateCollector


@click.command()
@click.option("--port", type=click.IntRange(1, 65_535), default=9815, show_default=True, help="Port to listen on.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--once", is_flag=True, help="Print them once in Prometheus' text format, and end.")
@json_option
@click.pass_context
def metrics(ctx: click.Context, port: int, address: str, once: bool, as_json: bool) -> None:
    """Serve the metrics of the deployment to Prometheus, read from Redis at each scrape. One server is enough.

    With --once or --json they are printed once. While Redis is away that is cloudai_up 0, and the exit code is 1.
    """
    if once or as_json:
        _print_once(ctx, as_json=as_json)
        return
    registry = CollectorRegistry()
    registry.register(StateCollector(deployment(ctx)))
    try:
        server, thread = start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {address}:{port} ({error}): choose another --port") from error
    click.echo(f"Metrics: http://{address}:{port}/metrics, Ctrl-C ends it")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _print_once(ctx: click.Context, *, as_json: bool) -> None:
    """Print all there is, also where that is no more than that Redis is away; then exit with 1."""
    away: list[RedisError] = []
    registry = CollectorRegistry()
    registry.register(StateCollector(deployment(ctx), away.append))
    if as_json:
        values = _values(registry)
        print_json({"metrics": values, **({"error": connection_advice(ctx, away[0])} if away else {})})
    else:
        click.echo(generate_latest(registry).decode(), nl=False)
        if away:
            click.echo(f"Error: {connection_advice(ctx, away[0])}", err=True)
    if away:
        ctx.exit(1)


def _values(registry: CollectorRegistry) -> list[dict[str, object]]:
    units = {name: metric for metric in METRICS for name in metric.samples}
    return [
        {"name": sample.name, "labels": sample.labels, "value": sample.value, "meaning": units[sample.name].meaning}
        for family in registry.collect()
        for sample in family.samples
    ]
