"""The task class of a CloudAI application."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from celery import Task
from celery.result import AsyncResult
from celery.utils import uuid

from cloudai import node_hooks
from cloudai.app import ASKED, OPTIONS, CloudAI
from cloudai.bulk import submit_many
from cloudai.message_form import Call
from cloudai.names import HEADER
from cloudai.scheduling.errors import InvalidRequest
from cloudai.settings import ConfigurationError
from cloudai.submitting import ShortWay

#: Celery's own tasks that run the body of another one.
_MAPS = frozenset({"celery.map", "celery.starmap"})
#: Celery's own body of a group that replaces a task. A node publishes it, so a node must run it.
_ACCUMULATE = "celery.accumulate"
_LITTLE = {"resources": {"cpu": 0.05, "memory": "16MiB"}, "task_type": "mixed"}

#: Mark of a request whose body runs.
_BEGUN = "_cloudai_begun"


class CloudAITask(Task):
    """A Celery task that may ask for resources, for all its submissions (`@app.task(resources=...)`) or for one.

    The options of one submission win over those of the task. A task that asks for nothing is an ordinary Celery task.
    """

    abstract = True
    #: Resolved by the worker only; a producer never imports it.
    Request = "cloudai_workers.request:NodeRequest"

    #: cpu (cores), memory (GiB, or "512MiB"), gpu (devices), storage (GiB).
    resources: Mapping[str, Any] | None = None
    #: One of the six task types; None: inferred from the resources (spec section 1).
    task_type: str | None = None
    #: Time to finish from submission; None: k * tau (spec section 3).
    deadline: timedelta | None = None
    #: k of spec section 3, from 1.5 to 2.5.
    sla_multiplier: float | None = None
    #: What kind of job this is, for a finer tau.
    family: str | None = None
    user_id: str | None = None
    #: Labels that a node must have.
    constraints: Mapping[str, str] | None = None
    #: What to do with a request that no node could ever hold: "wait" visibly, or "reject".
    unplaceable: str | None = None

    #: Options of Celery that this task does not honour, each with what to do instead; refused with a request.
    refused_options: Mapping[str, str] = {}

    def asks_for(self, kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the task asks for in all its submissions, or in one with these arguments."""
        if self.name in _MAPS:
            return self._mapped_asks_for(kwargs or {})
        if self.name == _ACCUMULATE and self._cloudai_app().runs_claimed():
            return dict(_LITTLE)
        values = ((option, getattr(self, option, None)) for option in OPTIONS)
        return {option: value for option, value in values if value is not None}

    def _mapped_asks_for(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """`map`, `starmap` and `chunks` run the body of another task: they ask for what that one asks for."""
        mapped = kwargs.get("task")
        if not isinstance(mapped, Mapping):
            return {}
        task = self._get_app().tasks.get(mapped.get("task"))
        asked: dict[str, Any] = getattr(task, "asks_for", dict)()
        options = mapped.get("options") or {}
        return {**asked, **{option: options[option] for option in OPTIONS if option in options}}

    def check_submission(self, args: Any, kwargs: Any) -> None:
        """Refuse arguments at submission by raising InvalidRequest: a hook for subclasses."""

    def runtime_limit(self, kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> float | None:
        """The longest that a submission may run, s, where it says so: no prediction is above it."""
        limits = (options.get(name) or getattr(self, name, None) for name in ("soft_time_limit", "time_limit"))
        return min((float(limit) for limit in limits if limit), default=None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body. An attempt that was superseded meanwhile stores no result and starts no link."""
        request = self.request_stack.top
        if request is None or request.called_directly or request.__dict__.get(_BEGUN):
            # A direct call, perhaps from a body: Celery's own gives it a request.
            return super().__call__(*args, **kwargs)
        request.__dict__[_BEGUN] = True
        claimed = getattr(request, HEADER, None)
        if not claimed or "attempt" not in claimed:
            return self.run(*args, **kwargs)
        return node_hooks.hooks.fenced(
            request.id, claimed["attempt"], functools.partial(self.run, *args, **kwargs)
        )

    def _cloudai_app(self) -> CloudAI:
        app = self._get_app()
        if not isinstance(app, CloudAI):
            raise ConfigurationError(
                f"{self.name}: the current application is {type(app).__name__}, not CloudAI: make one "
                "(app = CloudAI(...)) or import yours before you submit"
            )
        return app

    @property
    def short_way(self) -> ShortWay:
        """How usual submissions of this task go; see cloudai.submitting."""
        found = self.__dict__.get("_short_way")
        if found is None:
            found = self.__dict__["_short_way"] = ShortWay(self._get_app(), self)
        return found

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Any:
        """As Celery's; besides, the options in `cloudai.app.OPTIONS`.

        Raises InvalidRequest (names field, value, what is allowed), Unplaceable, ClusterFull, DuplicateTask;
        nothing was written then.
        """
        app = self._cloudai_app()
        again = app.carried_request(options.get("headers"), task_id) is not None
        asked = {} if again else self.asks_for(kwargs)
        asked.update({option: options.pop(option) for option in OPTIONS if option in options})
        if app.conf.task_always_eager:
            if asked:
                # Validated as elsewhere; there is no node to choose.
                app.request_header(self.name, args, kwargs, asked, task_id=task_id or uuid())
        elif asked:
            if not (task_id or producer or link or link_error or shadow) and self.short_way.takes(options):
                return self.short_way.submit(args or (), kwargs or {}, asked, options)
            options[ASKED] = asked
        return super().apply_async(args, kwargs, task_id, producer, link, link_error, shadow, **options)

    def apply_many(self, calls: Iterable[Call], **options: Any) -> list[AsyncResult]:
        """Submit this task once for each `(args, kwargs)` of `calls`; returns their results in that order.

        Several times faster than as many `apply_async`. Takes the options in `cloudai.app.OPTIONS` and those in
        `cloudai.bulk.ALLOWED`; raises as `apply_async`, with nothing written, but for ClusterFull: its `accepted`
        are the ids of the tasks that were accepted before.
        """
        app = self._cloudai_app()
        asked = self.asks_for()
        asked.update({option: options.pop(option) for option in OPTIONS if option in options})
        if not asked:
            raise InvalidRequest(
                "resources", None, "a request: apply_many is for tasks that go through RTS; use a group for others"
            )
        calls = list(calls)
        if app.conf.task_always_eager:
            return [self.apply_async(args, kwargs, **asked, **options) for args, kwargs in calls]
        return submit_many(app, self, calls, asked, options)
