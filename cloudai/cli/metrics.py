"""`cloudai metrics`: the deployment's metrics for Prometheus."""

from __future__ import annotations

import threading

import click
from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from cloudai.cli.application import deployment
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
    """Serve the metrics of the deployment to Prometheus, read from Redis at each scrape. One server is enough."""
    registry = CollectorRegistry()
    registry.register(StateCollector(deployment(ctx)))
    if as_json:
        print_json({"metrics": _values(registry)})
        return
    if once:
        click.echo(generate_latest(registry).decode(), nl=False)
        return
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


def _values(registry: CollectorRegistry) -> list[dict[str, object]]:
    units = {name: metric for metric in METRICS for name in metric.samples}
    return [
        {"name": sample.name, "labels": sample.labels, "value": sample.value, "meaning": units[sample.name].meaning}
        for family in registry.collect()
        for sample in family.samples
    ]
