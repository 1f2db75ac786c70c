"""A process that submits containers with CloudAI and waits for their results."""

from __future__ import annotations

import time

from cloudai import run_container
from cloudai.bench.conversation import serve
from cloudai.celery import app

_TIMEOUT_S = 60.0

app.set_default()


def run(image: str, command: list[str]) -> float:
    """Seconds from the submission to the result."""
    started = time.perf_counter()
    result = run_container.apply_async(
        kwargs={"image": image, "command": command}, resources={"cpu": 1, "memory": "64MiB"}
    )
    result.get(timeout=_TIMEOUT_S)
    return time.perf_counter() - started


def nodes() -> int:
    """Nodes that have joined."""
    return len(app.deployment.fleet.names())


if __name__ == "__main__":
    serve({"run": run, "nodes": nodes})
