"""The task class of a CloudAI application."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from celery import Task
from celery.utils import uuid

from cloudai.app import ASKED, OPTIONS
from cloudai.scheduling.errors import InvalidRequest

#: What a task may declare once for all its submissions. The class attribute for `task_type` is `asks_task_type`,
#: because Celery uses the plain name.
_DECLARED = {option: option for option in OPTIONS if option != "target_worker_id"} | {"task_type": "task_type"}


class CloudAITask(Task):  # type: ignore[misc]
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

    def asks_for(self) -> dict[str, Any]:
        """What the task asks for in all its submissions."""
        values = ((option, getattr(self, option, None)) for option in OPTIONS)
        return {option: value for option, value in values if value is not None}

    def check_submission(self, args: Any, kwargs: Any) -> None:
        """Hook: refuse arguments at submission by raising InvalidRequest."""

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

        Raises InvalidRequest (names field, value, what is allowed), Unplaceable, ClusterFull, DuplicateTask; nothing
        was written then.
        """
        app = self._get_app()
        asked = self.asks_for()
        asked.update({option: options.pop(option) for option in OPTIONS if option in options})
        if asked:
            if self.rate_limit is not None:
                raise InvalidRequest(
                    "rate_limit", self.rate_limit, "None: a node takes what it has room for; rate limits are not honoured"
                )
            if app.conf.task_always_eager:
                # Validated as elsewhere; there is no node to choose.
                app.request_header(self.name, args, kwargs, asked, task_id=task_id or uuid())
        if asked and not app.conf.task_always_eager:
            options[ASKED] = asked
        return super().apply_async(args, kwargs, task_id, producer, link, link_error, shadow, **options)
