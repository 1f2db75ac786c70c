"""The Celery application class: change `Celery` to `CloudAI`, and tasks that ask for resources go through RTS."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from celery.utils import uuid
from kombu.utils.url import parse_url

from cloudai import transport
from cloudai.deployment import Deployment
from cloudai.names import HEADER, PLACE_QUEUE
from cloudai.router import RTSRouter
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.requests import RequestDefaults, parse_request
from cloudai.settings import ConfigurationError, Settings
from cloudai.submission import RequestHeader, read_header

#: What a submission may ask of CloudAI, in `apply_async`, `send_task`, `Signature.set`, or as attributes of a task.
OPTIONS = (
    "resources",
    "task_type",
    "deadline",
    "sla_multiplier",
    "family",
    "user_id",
    "target_worker_id",
    "constraints",
    "unplaceable",
)

#: Option under which a task hands what was asked for to `send_task`, whose own `task_type` is the task's class.
ASKED = "cloudai_asked"

_BROKERS = frozenset({"redis", "rediss", "sentinel"})


class _AMQP(AMQP):  # type: ignore[misc]
    """Celery's message side with our router before the project's own routes."""

    def flush_routes(self) -> None:
        super().flush_routes()
        self._rtable = (self.app.rts_router, *self._rtable)


class CloudAI(Celery):  # type: ignore[misc]
    """A Celery application whose tasks may ask for resources, a deadline and more; see OPTIONS.

    Everything else is Celery's: tasks that ask for nothing are routed and run as before. Broker and live state are the
    same Redis. `settings` come from the environment and cloudai.toml unless they are given.
    """

    amqp_cls = _AMQP
    task_cls = "cloudai.task:CloudAITask"
    control_cls = "cloudai.control:Control"

    def __init__(self, main: str | None = None, *args: Any, settings: Settings | None = None, node_by_default: bool = False, **kwargs: Any) -> None:
        #: Whether a worker of this application is a node unless `--no-node` is given.
        self.node_by_default = node_by_default
        self.settings = settings or Settings.load()
        transport.register()
        super().__init__(main, *args, **kwargs)
        broker = kwargs.get("broker") or self.settings.redis.url
        self.add_defaults(
            {
                "broker_url": broker,
                "result_backend": self.settings.redis.result_url or broker,
                # Containers may run for hours: a worker must wait for its broker, not exit after 100 attempts.
                "broker_connection_max_retries": None,
                "broker_connection_retry_on_startup": True,
                # Python keeps a result that could not be stored and tries again; stock Celery loses it.
                "result_backend_always_retry": True,
                "task_track_started": True,
                "worker_send_task_events": True,
                "task_serializer": "json",
                "accept_content": ["json"],
            }
        )
        self.user_options["worker"].add(_node_option())

    @cached_property
    def deployment(self) -> Deployment:
        """State and scheduling of this application. ConfigurationError when the broker is not Redis."""
        url = self.conf.broker_write_url or self.conf.broker_url
        if isinstance(url, (list, tuple)):
            url = url[0]
        scheme = parse_url(url)["transport"]
        if scheme not in _BROKERS:
            raise ConfigurationError(
                f"broker_url: {scheme}://...: CloudAI keeps its state in the broker's Redis: redis://, rediss:// or sentinel://"
            )
        if self.conf.broker_transport_options.get("global_keyprefix"):
            raise ConfigurationError(
                "broker_transport_options: global_keyprefix: leave it out and set redis.namespace, which serves the same end"
            )
        redis_settings = self.settings.redis.model_copy(update={"url": url})
        return Deployment(self.settings.model_copy(update={"redis": redis_settings}))

    @cached_property
    def rts_router(self) -> RTSRouter:
        """The router that scores the nodes."""
        return RTSRouter(self.deployment.placing)

    @cached_property
    def request_defaults(self) -> RequestDefaults:
        """What a request that leaves something out gets (limits.default_cpu, limits.default_memory)."""
        limits = self.settings.limits
        return RequestDefaults(cpu=limits.default_cpu, memory=limits.default_memory)

    def _connection(self, url: str, *args: Any, transport_options: Any = None, **kwargs: Any) -> Any:
        options = {**(transport_options or {}), transport.OPTION: self.deployment.key}
        return super()._connection(url, *args, transport_options=options, **kwargs)

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - the name is Celery's
        return self.subclass_with_self("cloudai_workers.worker:NodeWorker", name="Worker")

    def request_header(
        self,
        name: str,
        args: Any,
        kwargs: Any,
        asked: Mapping[str, Any],
        *,
        task_id: str,
        countdown: float | None = None,
        eta: datetime | str | None = None,
    ) -> RequestHeader:
        """Validate what a submission asks for. InvalidRequest names the field, what was given and what is allowed."""
        task = self._tasks.get(name)
        check = getattr(task, "check_submission", None)
        if check is not None:
            check(args or (), kwargs or {})
        now = self.deployment.view.now()
        fields = dict(asked)
        request = parse_request(fields.pop("resources", None), now=now, defaults=self.request_defaults, **fields)
        delay = None if countdown is None or eta else float(countdown)
        return RequestHeader(request, task_id, deadline=request.deadline, delay_s=delay)

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """As Celery's; besides, the options in OPTIONS. Raises the errors of cloudai.errors, with nothing written."""
        asked = options.pop(ASKED, None)
        if asked is None:
            asked = {option: options.pop(option) for option in OPTIONS if option in options and option != "task_type"}
            if isinstance(options.get("task_type"), str):
                asked["task_type"] = options.pop("task_type")
            asked = {**getattr(self._tasks.get(name), "asks_for", dict)(), **asked}
        headers = options.get("headers") or {}
        carried = headers.get(HEADER)
        if asked or carried is not None:
            task_id = task_id or uuid()
            if carried is not None and not asked.get("resources"):
                # A retry or a replacement: the same request, with the deadline that it had.
                request, deadline = read_header(carried)
                delay = None if countdown is None or eta else float(countdown)
                header = RequestHeader(request, task_id, deadline=deadline, delay_s=delay)
            else:
                header = self.request_header(
                    name, args, kwargs, asked, task_id=task_id, countdown=countdown, eta=eta
                )
            self._refuse_destination(options)
            # Members of a group share one headers dict: never write into the caller's.
            options["headers"] = {**headers, HEADER: header}
        return super().send_task(name, args, kwargs, countdown=countdown, eta=eta, task_id=task_id, **options)

    def _refuse_destination(self, options: dict[str, Any]) -> None:
        """A queue of the caller's would win over the router's: with a request it is a contradiction."""
        for option in ("queue", "exchange", "routing_key"):
            given = options.pop(option, None)
            given = getattr(given, "name", given)
            if given and given != PLACE_QUEUE:
                raise InvalidRequest(
                    option, given, "nothing: a task that asks for resources goes to the node that RTS chooses; "
                    "pin one with target_worker_id"
                )


def _node_option() -> Any:
    import click

    return click.Option(
        ["--node/--no-node"],
        default=None,
        help="Run as a CloudAI node: take the tasks that ask for resources, and only those.",
    )
