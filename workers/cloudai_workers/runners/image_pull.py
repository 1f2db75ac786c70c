"""Fetching an image, so that a stop does not have to wait for the registry."""

from __future__ import annotations

import threading
from typing import Any

from docker.errors import APIError
from docker.utils import parse_repository_tag

from cloudai_workers.runners.base import StopHandle
from cloudai_workers.runners.engine_errors import explanation, pull_failure


def pull_image(client: Any, image: str, control: StopHandle) -> bool:
    """Fetch an image with the credentials of the node's own Docker configuration.

    Returns False when the job was stopped meanwhile; the transfer is then given up.

    Raises:
        ImageNotFound, PullDenied, EngineUnavailable: as the engine told of the registry.
        docker.errors.DockerException and what else ENGINE_AWAY lists: the engine itself went away.

    """
    over = threading.Event()
    failures: list[Exception] = []

    def transfer() -> None:
        # Without a tag the engine would fetch every tag there is.
        repository, tag = parse_repository_tag(image)
        try:
            for line in client.pull(repository, tag=tag or "latest", stream=True, decode=True):
                if "error" in line:
                    failures.append(pull_failure(image, str(line["error"]), None))
                if control.reason is not None:
                    break  # closing the stream makes the engine give up
        except APIError as error:
            failures.append(pull_failure(image, explanation(error), error.status_code))
        except Exception as error:  # what it means is for the job's own thread to say; here it would be lost
            failures.append(error)
        finally:
            over.set()

    control.on_stop(over.set)
    try:
        threading.Thread(target=transfer, name=f"pull-{image}", daemon=True).start()
        over.wait()
    finally:
        control.forget(over.set)
    if control.reason is not None:
        return False
    if failures:
        raise failures[0]
    return True
