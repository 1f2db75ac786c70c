"""Where the container engine listens. The standard library alone: the guardian is small."""

from __future__ import annotations

import os

_DEFAULT = "unix:///var/run/docker.sock"


def engine_address(configured: str) -> str:
    """The node's own setting (`node.docker_url`), else DOCKER_HOST, else Docker's default."""
    return configured or os.environ.get("DOCKER_HOST") or _DEFAULT
