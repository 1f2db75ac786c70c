"""Fetching an image, so that a stop does not have to wait for the registry."""

from __future__ import annotations

import threading
from typing import Any

from docker.errors import APIError
from docker.utils import parse_repository_tag

from cloudai.containers.errors import ContainerError
from cloudai_workers.runners.base import StopHandle
from cloudai_workers.runners.engine_errors import ENGINE_AWAY, explanation, pull_failure


def pull_image(client: Any, image: str, control: StopHandle) -> bool:
    """Fetch an image with the credentials of the node's own Docker configuration.

    Returns False when the job was stopped meanwhile; the transfer is then given up.

    Raises:
        ImageNotFound, PullDenied, EngineUnavailable: as the registry or the engine answered.

    """
    over = threading.Event()
    failures: list[ContainerError] = []

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
        except ENGINE_AWAY as error:
            failures.append(pull_failure(image, explanation(error), None))
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
