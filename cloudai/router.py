"""The Celery router: scores every node with RTS and sends the task to the place queue with its candidates.

Celery's router sees neither the task's id nor its eta (they are arguments of `send_task`), so `CloudAI.send_task` puts
them into a RequestHeader; a submission without one asks for nothing of CloudAI, and the next router has its turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kombu.entity import Queue

from cloudai.names import HEADER, PLACE_QUEUE
from cloudai.request_header import RequestHeader

if TYPE_CHECKING:
    from cloudai.placing import Placing

_PLACE = Queue(PLACE_QUEUE)


class RTSRouter:
    """A Celery router (an entry of `task_routes`)."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing

    def __call__(
        self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any], task: Any = None, **extra: Any
    ) -> dict[str, Any] | None:
        """The route of a submission with a request; None leaves it to the next router."""
        header = (options.get("headers") or {}).get(HEADER)
        if not isinstance(header, RequestHeader):
            return None
        self._placing.decide_into(header)
        # Nothing to declare: the queue is virtual, and its binding would be one more write for each connection.
        return {"queue": _PLACE, "declare": []}
