"""Reading what a container engine answers, and naming the failure that it means."""

from __future__ import annotations

import requests
import urllib3
from docker.errors import APIError, DockerException, StreamParseError

from cloudai.containers.errors import (
    CommandNotFound,
    ContainerError,
    EngineUnavailable,
    ImageNotFound,
    PullDenied,
)

#: What an engine away, restarting or hanging looks like through the SDK: also in the middle of an answer that it sends
#: in pieces, where the SDK passes on what urllib3 raises, or fails to read a piece.
ENGINE_AWAY = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    StreamParseError,
    DockerException,
    OSError,
)


class EngineAway(EngineUnavailable):
    """The engine does not answer, and nothing of the job has begun here: it may begin elsewhere."""


_NOT_STARTABLE = (
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "exec format error",
    "no command specified",
    "not a directory",
    "is a directory",
    "unable to find user",
    "unable to find group",
    "no matching entries in passwd",
)


_UNREACHABLE = (
    "no such host",
    "server misbehaving",
    "connection refused",
    "no route to host",
    "network is unreachable",
    "timeout",
    "deadline exceeded",
    "request canceled",
)


def explanation(error: BaseException) -> str:
    """The engine's own words, on one line."""
    words = getattr(error, "explanation", None) or str(error)
    return " ".join(str(words).split())[:500].rstrip(".")


def is_missing_image(error: APIError) -> bool:
    """Whether a 404 at create is about the image."""
    return error.status_code == 404 and "image" in explanation(error).lower()


def create_failure(error: APIError) -> ContainerError:
    """The failure that a refused create or start means."""
    words = explanation(error)
    low = words.lower()
    if "could not select device driver" in low or "nvidia-container" in low or "mounts denied" in low:
        return EngineUnavailable(words)
    if error.status_code in (400, 404, 500) and any(sign in low for sign in _NOT_STARTABLE):
        return CommandNotFound(words)
    return EngineUnavailable(words)


def pull_failure(image: str, words: str, status: int | None) -> ContainerError:
    """The failure that an engine's report of a failed pull means. Some registries say "denied" for what does not exist.

    A connection that broke between the node and its engine is none: it says nothing of the registry.
    """
    low = words.lower()
    detail = f"{image}: {words}"
    if status in (401, 403) or "denied" in low or "unauthorized" in low or "authentication required" in low:
        return PullDenied(detail)
    if (
        "not found" in low
        or "manifest unknown" in low
        or "no matching manifest" in low
        or "name unknown" in low
    ):
        return ImageNotFound(detail)
    if any(sign in low for sign in _UNREACHABLE):
        # What helps comes first: the engine's words may be long.
        return EngineUnavailable(
            f"pulling {image}: the node cannot reach its registry; let it, or load the image on the node beforehand "
            f"({words})"
        )
    return EngineUnavailable(f"pulling {detail}")
