"""`run_container`: the Celery task that runs a container on the node that RTS chooses.

    run_container.apply_async(kwargs={"image": "debian:bookworm", "command": ["echo", "hello"]},
                              resources={"cpu": 2, "memory": "4GiB"})

Keyword arguments: those of `cloudai.containers.spec.validate_container`. Result: the fields of `ContainerResult`.
Failures: the errors of `cloudai.containers.errors`, each with the record of what was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any

from celery import shared_task

# Celery rebuilds a failure from its module and name, and looks only at modules that are loaded.
from cloudai.containers import errors as errors
from cloudai.containers.spec import ContainerSpec
from cloudai.errors import InvalidRequest
from cloudai.names import CONTAINER_TASK
from cloudai.settings import Settings
from cloudai.task import CloudAITask

#: Entry point group by which the node's package brings the body of the task.
BODY_GROUP = "cloudai.node"


def checked_spec(kwargs: Mapping[str, Any], settings: Settings) -> ContainerSpec:
    """What a message's arguments describe, as these settings allow it. InvalidRequest names what they do not."""
    return ContainerSpec.from_kwargs(
        kwargs,
        volumes_allowlist=settings.node.volumes_allowlist,
        stores_allowlist=settings.node.stores_allowlist,
        networks_allowlist=settings.node.networks_allowlist,
        images_allowlist=settings.node.images_allowlist,
        images_pinned=settings.node.images_pinned,
        max_argument_bytes=settings.limits.max_arguments_kib * 1024,
    )


class ContainerTask(CloudAITask):
    """Checks the container's arguments at submission, so that a mistake is told to who made it."""

    abstract = True
    #: A container always goes through RTS; what it does not ask for comes from limits.default_cpu and default_memory.
    resources: Mapping[str, Any] = {}
    #: check_submission looks at the arguments, and says what is allowed.
    typing = False
    refused_options = dict.fromkeys(
        ("time_limit", "soft_time_limit"), "None: give the job a `timeout` in its arguments; it stops the container"
    )

    def runtime_limit(self, kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> float | None:
        """The container's `timeout`."""
        timeout = kwargs.get("timeout")
        return None if timeout is None else float(timeout)

    def shown_kwargs(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as monitors, logs and events may show them: without the values of the environment."""
        env = kwargs.get("env")
        return {**kwargs, "env": dict.fromkeys(env, "***")} if isinstance(env, Mapping) else dict(kwargs)

    def check_submission(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """The container's arguments, as the node will check them again."""
        if args:
            raise InvalidRequest("args", list(args), "none: give image, command and the rest as keyword arguments")
        checked_spec(kwargs, self._get_app().settings)


@shared_task(name=CONTAINER_TASK, base=ContainerTask, bind=True, throws=(errors.ContainerError,), track_started=True)
def run_container(self: ContainerTask, **kwargs: Any) -> dict[str, Any]:
    """Run a container on this node; see the module's docstring. Only a node can."""
    found = list(entry_points(group=BODY_GROUP, name="run_container"))
    if not found:
        raise errors.EngineUnavailable("this worker has no runner: install cloudai[worker] on the nodes")
    result: dict[str, Any] = found[0].load()(self, kwargs)
    return result
