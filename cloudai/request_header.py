"""What travels in a message's header beside Celery's own: what the task asks for, and what the router has decided.

The router fills it while it decides; with the message stay schema version, request and deadline.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from cloudai.names import CONTAINERS_LABEL, HEADER, SCHEMA_VERSION
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.request_fields import checked_epoch_seconds
from cloudai.scheduling.requests import TaskRequest

#: Versions of the header that this release reads: its own and the one before.
READABLE_VERSIONS = frozenset({SCHEMA_VERSION, SCHEMA_VERSION - 1})


class RequestHeader(dict[str, Any]):
    """The header of a submission on its way: JSON data, and beside it the request as a value for the router."""

    def __init__(self, request: TaskRequest, task_id: str, *, deadline: float | None, delay_s: float | None) -> None:
        super().__init__(v=SCHEMA_VERSION, req=request.to_header(), nonce=secrets.token_hex(8))
        #: What the task asks for.
        self.request = request
        self.task_id = task_id
        #: Explicit deadline, epoch seconds.
        self.deadline = deadline
        #: The attempt whose body publishes its own task again (retry, replace); 0: a submission from outside.
        self.from_attempt = 0
        if deadline is not None:
            self["deadline"] = deadline
        if delay_s is not None:
            self["delay"] = delay_s


def on_container_nodes(constraints: Mapping[str, str]) -> dict[str, str]:
    """The constraints of a container job: those given, and a node that can run it."""
    return {**constraints, CONTAINERS_LABEL: "yes"}


def read_header(header: Any) -> tuple[TaskRequest, float | None]:
    """Request and deadline (epoch s) of a header that came with a message. InvalidRequest on anything else."""
    if not isinstance(header, Mapping):
        raise InvalidRequest(HEADER, header, "a mapping with the request")
    version = header.get("v", SCHEMA_VERSION)
    if type(version) is not int or version not in READABLE_VERSIONS:
        raise InvalidRequest(
            f"{HEADER}.v", version,
            f"one of {sorted(READABLE_VERSIONS)}: producer and node are too far apart in version",
        )
    deadline = header.get("deadline")
    if deadline is not None:
        deadline = checked_epoch_seconds(deadline)
    request = header.get("req", {})
    if not isinstance(request, dict):
        raise InvalidRequest(f"{HEADER}.req", request, "a mapping with the request")
    return TaskRequest.from_header(request), deadline
