"""The short way of one submission into the ledger.

`apply_async` normally goes through Celery's `send_task` and kombu's producer, connection and channel to the transport's
`put`. For a submission without anything unusual, all that these would add to the message is known beforehand: a
MessageForm has it. What is unusual (links, chains, groups, an ETA, an expiry, stamps, custom headers, signals that
somebody listens to, a submission from inside a task) takes the normal way, and leads to the same message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celery import Task, signals
from celery.result import AsyncResult
from celery.utils import uuid
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cloudai.message_form import FORM_OPTIONS, MessageForm
from cloudai.request_header import RequestHeader
from cloudai.state.submissions import Submission
from cloudai.submission import kept_fields, placed_by, request_texts

#: Celery's own, which names no shadow.
_PLAIN_SHADOW = Task.shadow_name

#: Signals whose receivers want to see each message.
_WATCHED = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)


class ShortWay:
    """Submits one task of one application; made once and kept with the task."""

    def __init__(self, app: Any, task: Any) -> None:
        self._app = app
        self._task = task
        self._refused = frozenset(getattr(task, "refused_options", ()))
        self._forms: dict[tuple[Any, ...], MessageForm] = {}
        conf = app.conf
        declared = task._get_exec_options()
        self._open = (
            conf.task_serializer == "json"
            and not conf.task_compression
            and not conf.task_send_sent_event
            and not conf.task_always_eager
            and conf.task_protocol == 2
            and task.rate_limit is None
            and all(value is None or key in FORM_OPTIONS or (key, value) == ("serializer", "json")
                    for key, value in declared.items())
            and type(task).shadow_name is _PLAIN_SHADOW
        )  # fmt: skip

    def takes(self, options: Mapping[str, Any]) -> bool:
        """Whether a submission with these options of Celery's may go the short way."""
        return (
            self._open
            and all(value is None or key in FORM_OPTIONS - self._refused for key, value in options.items())
            and not any(signal.receivers for signal in _WATCHED)
            and self._app.current_worker_task is None
        )

    def submit(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], asked: Mapping[str, Any], options: Mapping[str, Any]
    ) -> AsyncResult:
        """As `apply_async`. Raises InvalidRequest, Unplaceable, ClusterFull, and kombu's OperationalError when Redis is
        away.
        """
        app, task = self._app, self._task
        if task.typing:
            task.__header__(*args, **kwargs)
        task_id = uuid()
        form = self._form(options)
        deployment = app.deployment
        try:
            header: RequestHeader = app.request_header(
                task.name, args, kwargs, asked, task_id=task_id, options=options
            )
            body = form.body((args, kwargs))
            deployment.placing.decide_into(header)
            request_json, header_json = request_texts(header.request)
            message = form.fill(task_id, header["nonce"], (args, kwargs), header_json, body)
            deployment.submit(_submission(header, form, request_json, message), header["cand"])
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise OperationalError(str(error)) from error
        result: AsyncResult = app.AsyncResult(task_id)
        result.ignored = options.get("ignore_result", task.ignore_result)
        if not result.ignored:
            app.backend.on_task_call(None, task_id)
        return result

    def _form(self, options: Mapping[str, Any]) -> MessageForm:
        key = tuple(sorted((name, value) for name, value in options.items() if value is not None))
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) >= 64:
                self._forms.clear()
            form = self._forms[key] = MessageForm(self._app, self._task, options)
        return form


def _submission(header: RequestHeader, form: MessageForm, request_json: str, message: str) -> Submission:
    request = header.request
    return Submission(
        task_id=header.task_id,
        nonce=header["nonce"],
        **placed_by(request),
        sla_s=header["sla"],
        deadline=header.deadline,
        eta=0.0,
        expires=0.0,
        priority=form.priority,
        name=form.name,
        retries=0,
        request=request_json,
        message=message,
        decision=header["rec"],
        fallback=header["fb"],
        extra=kept_fields(request, header["tau"], header["par"], header["pred"]),
    )
