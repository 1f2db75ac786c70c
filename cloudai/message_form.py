"""The message of a task as text with gaps, so that most of it is built once and not for every submission.

Celery and this module build the first message as they would build any; the others differ in id, arguments, what Celery
derives from them, and the request.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from celery.utils.saferepr import saferepr
from kombu.utils.json import dumps

from cloudai.names import HEADER, PLACE_QUEUE
from cloudai.scheduling.errors import InvalidRequest

#: Positional and keyword arguments of one call.
Call = tuple[Sequence[Any], Mapping[str, Any]]

#: Options of `apply_async` that a form takes: they hold for all its messages.
FORM_OPTIONS = frozenset({"priority", "ignore_result", "time_limit", "soft_time_limit"})

_GAPS = tuple(f"@@{name}-{secrets.token_hex(8)}@@" for name in ("id", "tag", "args", "kwargs", "body", "header"))
_ID, _TAG, _ARGS, _KWARGS, _BODY, _HEADER = _GAPS
#: A gap, with its quotes where all of a JSON value is missing.
_CUT = re.compile(f'("{_HEADER}"|{"|".join(_GAPS[:-1])})')

_encode = json.JSONEncoder().encode


class MessageForm:
    """The messages of one task under one set of options. InvalidRequest when its serializer is not JSON."""

    def __init__(
        self, app: Any, task: Any, options: Mapping[str, Any], headers: Mapping[str, Any] | None = None
    ) -> None:
        execution = {k: v for k, v in {**task._get_exec_options(), **options}.items() if v is not None}
        serializer = execution.pop("serializer", None) or app.conf.task_serializer
        if serializer != "json" or app.conf.task_compression:
            raise InvalidRequest("serializer", serializer, "json, not compressed")
        self._task = task
        self._args_limit = app.amqp.argsrepr_maxsize
        self._kwargs_limit = app.amqp.kwargsrepr_maxsize
        self._size_limit = app.settings.limits.max_arguments_kib * 1024
        self._shown = getattr(task, "shown_kwargs", None)
        priority = execution.pop("priority", None)
        message = app.amqp.create_task_message(
            _ID, task.name, (), {}, argsrepr=_ARGS, kwargsrepr=_KWARGS, reply_to=app.thread_oid,
            ignore_result=execution.pop("ignore_result", task.ignore_result), **execution,
        )  # fmt: skip
        #: Celery name of the task.
        self.name: str = task.name
        #: Celery's priority, 0 first.
        self.priority = min(9, max(0, priority)) if isinstance(priority, int) else 0
        #: When it expires, as Celery writes it, or None.
        self.expires: str | None = message.headers.get("expires")
        # What Celery embeds beside the arguments: callbacks, chain, chord.
        self._body_end = ", " + dumps(message.body[2]) + "]"
        properties = {
            **message.properties,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": PLACE_QUEUE},
            "priority": priority or 0,
            "body_encoding": "base64",
            "delivery_tag": _TAG,
        }
        text = dumps(
            {
                "body": _BODY,
                "content-encoding": "utf-8",
                "content-type": "application/json",
                "headers": {**message.headers, **(headers or {}), HEADER: _HEADER},
                "properties": properties,
            }
        )
        self._pieces = _CUT.split(text)

    def body(self, call: Call) -> str:
        """The body of one call in base64. InvalidRequest when its arguments are too large."""
        args, kwargs = call
        arguments = f"[{dumps(args)}, {dumps(kwargs)}"
        body = (arguments + self._body_end).encode()
        if len(body) > self._size_limit:
            size = len(arguments.encode()) + 1
            if size > self._size_limit:
                raise InvalidRequest(
                    "arguments", f"{size} bytes",
                    f"at most {self._size_limit} bytes (limits.max_arguments_kib); pass large data by reference",
                )  # fmt: skip
        return base64.b64encode(body).decode()

    def fill(self, task_id: str, tag: str, call: Call, header: str, body: str) -> str:
        """The whole message of one call, from its body and the JSON of our header."""
        args, kwargs = call
        shown = kwargs if self._shown is None else self._shown(kwargs)
        values = {
            _ID: task_id,
            _TAG: tag,
            _ARGS: _encode(saferepr(args, self._args_limit))[1:-1],
            _KWARGS: _encode(saferepr(shown, self._kwargs_limit))[1:-1],
            _BODY: body,
            f'"{_HEADER}"': header,
        }
        return "".join([values.get(piece, piece) for piece in self._pieces])
