"""The Celery application class: change `Celery` to `CloudAI`, and tasks that ask for resources go through RTS."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from math import inf
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from celery.utils import uuid
from celery.utils.saferepr import saferepr
from kombu.exceptions import OperationalError
from kombu.utils.json import register_type
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cloudai import transport
from cloudai.deployment import Deployment
from cloudai.names import CONTAINER_TASK, HEADER, PLACE_QUEUE
from cloudai.request_header import RequestHeader, on_container_nodes, read_header
from cloudai.router import RTSRouter
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.requests import RequestDefaults, TaskRequest, parse_request
from cloudai.settings import ConfigurationError, Settings
from cloudai.settings.celery_program import mistakes_told_plainly
from cloudai.state.connection import is_sentinel

logger = logging.getLogger(__name__)
#: Result backends in place of Celery's own, by the scheme of `result_backend`.
RESULT_STORES = {
    "redis": "cloudai.result_store:ResultStore",
    "rediss": "cloudai.result_store:ResultStore",
    "sentinel": "cloudai.result_store:SentinelResultStore",
}

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

#: Brokers whose Redis the state can live in.
_BROKERS = frozenset({"redis", "rediss", "sentinel"})

#: Between two attempts of a running task to submit another while Redis is away, seconds.
_SUBMIT_RETRY_S = 0.5

#: Retries keep these: the ledger has them from the first submission.
_KEPT_BY_RETRY = ("deadline", "target_worker_id")

# A signature in a chain or a link travels as JSON, and a deadline may be a time span.
register_type(timedelta, "cloudai.timedelta", lambda span: span.total_seconds(), lambda s: timedelta(seconds=s))


class _AMQP(AMQP):
    """Celery's message side with our router before the project's own routes."""

    def flush_routes(self) -> None:
        super().flush_routes()
        self._rtable: tuple[Any, ...] = (self.app.rts_router, *self._rtable)


class CloudAI(Celery):
    """A Celery application whose tasks may ask for resources, a deadline and more; see OPTIONS.

    Everything else is Celery's: tasks that ask for nothing are routed and run as before. Broker and live state are the
    same Redis. `settings` come from the environment and cloudai.toml unless they are given.
    """

    amqp_cls = _AMQP
    task_cls = "cloudai.task:CloudAITask"
    control_cls = "cloudai.control:Control"

    def __init__(
        self,
        main: str | None = None,
        *args: Any,
        settings: Settings | None = None,
        node_by_default: bool = False,
        **kwargs: Any,
    ) -> None:
        #: Whether a worker of this application is a node unless `--no-node` is given.
        self.node_by_default = node_by_default
        self.settings = settings or Settings.load()
        transport.register()
        super().__init__(main, *args, **kwargs)
        self.loader.override_backends = {**RESULT_STORES, **self.loader.override_backends}
        broker = kwargs.get("broker") or self.settings.redis.url
        # kombu and Celery's result store take the name of the Sentinels' master each in options of its own.
        master = {"master_name": self.settings.redis.sentinel_master} if is_sentinel(str(broker)) else {}
        self.add_defaults(
            {
                "broker_url": broker,
                "result_backend": self.settings.redis.result_url or broker,
                **({"broker_transport_options": master, "result_backend_transport_options": master} if master else {}),
                # Containers may run for hours: a worker must wait for its broker, not exit after 100 attempts.
                "broker_connection_max_retries": None,
                "broker_connection_retry_on_startup": True,
                # Python keeps a result that could not be stored and tries again; stock Celery loses it.
                "result_backend_always_retry": True,
                "task_serializer": "json",
                "accept_content": ["json"],
            }
        )
        self.user_options["worker"].add(_node_option())

    @cached_property
    @mistakes_told_plainly()
    def deployment(self) -> Deployment:
        """State and scheduling of this application. ConfigurationError when the broker is not Redis."""
        url = self.conf.broker_write_url or self.conf.broker_url
        if isinstance(url, (list, tuple)):
            url = url[0]
        scheme = str(url).partition("://")[0]
        if scheme not in _BROKERS:
            raise ConfigurationError(
                f"broker_url: {scheme}://...: CloudAI keeps its state in the broker's Redis: redis://, rediss:// "
                "or sentinel://"
            )
        if self.conf.broker_transport_options.get("global_keyprefix"):
            raise ConfigurationError(
                "broker_transport_options: global_keyprefix: leave it out and set redis.namespace, which serves "
                "the same end"
            )
        options = self.conf.broker_transport_options
        master = options.get("master_name") or self.settings.redis.sentinel_master
        if is_sentinel(url) and not master:
            raise ConfigurationError(
                "redis.sentinel_master: given nothing; allowed with a sentinel:// broker: the name of the master that "
                "the Sentinels watch"
            )
        redis_settings = self.settings.redis.model_copy(update={"url": url, "sentinel_master": master})
        settings = self.settings.model_copy(update={"redis": redis_settings})
        return Deployment(settings, options.get("sentinel_kwargs"))

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
        """Celery's worker, which may be a node."""
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
        options: Mapping[str, Any] | None = None,
    ) -> RequestHeader:
        """Validate what a submission asks for. InvalidRequest names the field, what was given and what is allowed."""
        check = getattr(self.tasks.get(name), "check_submission", None)
        if check is not None:
            check(args or (), kwargs or {})
        limit = getattr(self.tasks.get(name), "runtime_limit", _runtime_limit)
        request = self._parse(name, asked, limit(kwargs or {}, options or {}))
        return RequestHeader(request, task_id, deadline=request.deadline, delay_s=_delay(countdown, eta))

    def finalize(self, auto: bool = False) -> None:
        """As Celery's; every application knows `run_container`, so that it is checked wherever it is submitted."""
        import cloudai.container_task  # noqa: F401 - it needs this module

        super().finalize(auto=auto)

    def carried_request(self, headers: Mapping[str, Any] | None, task_id: str | None) -> dict[str, Any] | None:
        """The header that a claimed task's own message carried, when that task publishes itself again (a retry)."""
        carried = (headers or {}).get(HEADER)
        ours = isinstance(carried, dict) and task_id is not None and carried.get("id") == task_id
        return carried if ours else None

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        task_id: str | None = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """As Celery's; besides, the options in OPTIONS. Raises the errors of cloudai.errors, with nothing written.

        A task on a node that submits another (a chain's next step among them) waits while Redis is away, as its result
        would, unless `retry=False` is given.
        """
        if not self._claimed() or options.get("retry") is False:
            return self._send_task(name, args, kwargs, countdown, eta, task_id, *more, **options)
        task_id = task_id or uuid()
        while True:
            try:
                return self._send_task(name, args, kwargs, countdown, eta, task_id, *more, **options)
            except (RedisConnectionError, RedisTimeoutError, OperationalError) as error:
                logger.warning("redis-away task=%s: it is submitted when Redis is back (%s)", task_id, error)
                time.sleep(_SUBMIT_RETRY_S)

    def _claimed(self) -> dict[str, Any]:
        """What the claim says of the task that runs in this thread; empty where none does."""
        current = self.current_worker_task
        header = getattr(current.request, HEADER, None) if current is not None else None
        return header if isinstance(header, dict) and header.get("attempt") else {}

    def _send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        task_id: str | None = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        task = self.tasks.get(name)
        headers = options.get("headers") or {}
        carried = self.carried_request(headers, task_id)
        asked = options.pop(ASKED, None)
        if asked is None:
            asked = {option: options.pop(option) for option in OPTIONS if option in options and option != "task_type"}
            if isinstance(options.get("task_type"), str):
                asked["task_type"] = options.pop("task_type")
            if carried is None:
                asked = {**self._asked_by(task, kwargs), **asked}
        if asked or carried is not None:
            nonce = self._step_nonce(task_id) if task_id and carried is None else ""
            task_id = task_id or uuid()
            if carried is not None:
                header = self._retry_header(name, carried, task, args, kwargs, asked, countdown, eta)
            else:
                header = self.request_header(
                    name, args, kwargs, asked, task_id=task_id, countdown=countdown, eta=eta, options=options
                )
                header.from_attempt = self._publishing_attempt(task_id)
                if nonce and not header.from_attempt:
                    header["nonce"] = nonce
            self._refuse_options(task, options)
            shown = getattr(task, "shown_kwargs", None)
            if shown is not None and options.get("kwargsrepr") is None:
                options["kwargsrepr"] = saferepr(shown(kwargs or {}), self.amqp.kwargsrepr_maxsize)
            # Members of a group share one headers dict: never write into the caller's.
            options["headers"] = {**headers, HEADER: header}
        return super().send_task(name, args, kwargs, countdown, eta, task_id, *more, **options)

    def _parse(self, name: str, asked: Mapping[str, Any], limit_s: float | None = None) -> TaskRequest:
        fields = dict(asked)
        constraints = fields.get("constraints") or {}
        if name == CONTAINER_TASK and isinstance(constraints, Mapping):
            fields["constraints"] = on_container_nodes(constraints)
        resources = fields.pop("resources", None)
        view = self.deployment.view
        if fields.get("deadline") is not None and not self.conf.task_always_eager:
            # A moment, or a span from now, by the server's clock: it must have been heard once.
            view.refresh(inf)
        return parse_request(resources, limit_s=limit_s, now=view.now(), defaults=self.request_defaults, **fields)

    def _retry_header(
        self, name: str, carried: dict[str, Any], task: Any, args: Any, kwargs: Any, asked: Mapping[str, Any],
        countdown: float | None, eta: datetime | str | None,
    ) -> RequestHeader:  # fmt: skip
        """The request that the task had, with its deadline, changed where this retry asks for something else."""
        check = getattr(task, "check_submission", None)
        if check is not None:
            check(args or (), kwargs or {})
        request, deadline = read_header(carried)
        for option in _KEPT_BY_RETRY:
            if asked.get(option) is not None:
                raise InvalidRequest(option, asked[option], "nothing: a retry keeps what its task was submitted with")
        if asked:
            changed = self._parse(name, asked)
            fields = {option: getattr(changed, option) for option in asked}
            if "task_type" in asked or ("resources" in asked and not request.explicit_type):
                fields.update(task_type=changed.task_type, explicit_type=changed.explicit_type)
            request = replace(request, **fields)
        header = RequestHeader(request, carried["id"], deadline=deadline, delay_s=_delay(countdown, eta))
        header.from_attempt = int(carried.get("attempt") or 0)
        return header

    @staticmethod
    def _asked_by(task: Any, kwargs: Any) -> dict[str, Any]:
        asks_for = getattr(task, "asks_for", None)
        return {} if asks_for is None else asks_for(kwargs)

    def runs_claimed(self) -> bool:
        """Whether the body of a task that went through RTS runs in this thread."""
        return bool(self._claimed())

    def _step_nonce(self, task_id: str) -> str:
        """Makes one of all publications of a step by its predecessor, "" where no running task publishes it.

        A chain's next step is published before its predecessor's result is stored. If the node dies in between, the
        predecessor runs again, and publishes it again.
        """
        current = self.current_worker_task
        if not self._claimed():
            return ""
        told = f"{current.request.id} {current.request.retries} {task_id}"
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def _publishing_attempt(self, task_id: str) -> int:
        """The attempt whose body this is, when it publishes another task under its own id (`replace`); else 0."""
        current = self.current_worker_task
        if current is None or current.request.id != task_id:
            return 0
        claimed = getattr(current.request, HEADER, None) or {}
        return int(claimed.get("attempt") or 0)

    def _refuse_options(self, task: Any, options: dict[str, Any]) -> None:
        rate_limit = getattr(task, "rate_limit", None)
        if rate_limit is not None:
            raise InvalidRequest(
                "rate_limit", rate_limit, "None: a node takes what it has room for; rate limits are not honoured"
            )
        for option, allowed in getattr(task, "refused_options", {}).items():
            if options.get(option) is not None:
                raise InvalidRequest(option, options[option], allowed)
        self._refuse_destination(options)

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


def _runtime_limit(kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> float | None:
    """The longest that a task may run whose class is not known here, s."""
    given = (options.get("soft_time_limit"), options.get("time_limit"))
    return min((float(limit) for limit in given if limit), default=None)


def _delay(countdown: float | None, eta: datetime | str | None) -> float | None:
    return None if countdown is None or eta else float(countdown)


def _node_option() -> Any:
    import click

    return click.Option(
        ["--node/--no-node"],
        default=None,
        help="Run as a CloudAI node: take the tasks that ask for resources, and only those.",
    )
