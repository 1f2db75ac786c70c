"""A process that runs containers with the Docker SDK alone: the reference."""

from __future__ import annotations

import time

import docker

from cloudai.bench.conversation import serve

_client = docker.APIClient(timeout=60)


def run(image: str, command: list[str]) -> float:
    """Seconds of create, start, wait, logs and remove."""
    started = time.perf_counter()
    container = _client.create_container(image, command, host_config=_client.create_host_config(network_mode="none"))[
        "Id"
    ]
    _client.start(container)
    _client.wait(container)
    _client.logs(container)
    _client.remove_container(container)
    return time.perf_counter() - started


if __name__ == "__main__":
    serve({"run": run})
