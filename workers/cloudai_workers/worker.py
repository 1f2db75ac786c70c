"""The Celery worker of a CloudAI application: an ordinary worker, or a node (`--node`).

A node consumes only its own queue. Shutdown has a fixed order: take nothing new, give back what has not started, finish
what runs, report it, sign off.

What only a node needs is imported only by a node: the control process does without the extra `worker`.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any

import click
from celery import signals
from celery.apps.worker import Worker
from celery.utils.nodenames import gethostname, nodename
from celery.worker import state as worker_state

from cloudai.names import PLACE_QUEUE, node_queue
from cloudai.settings import ConfigurationError
from cloudai.settings.celery_program import mistakes_told_plainly

if TYPE_CHECKING:
    from cloudai_workers.node import Node

logger = logging.getLogger(__name__)

_NODE_NAME = re.compile(r"[\w.@-]+")
#: Bytes: what a folder's name may have.
_LONGEST_NAME = 255


class NodeWorker(Worker):
    """`app.Worker` of a CloudAI application."""

    #: The node, or None when this is an ordinary worker.
    node: Node | None = None

    def __init__(self, app: Any = None, hostname: str | None = None, node: bool | None = None, **kwargs: Any) -> None:
        application = app or self.app
        named = application.settings.node.name
        if named and self._is_node(node, application) and not _was_chosen("hostname"):
            hostname = nodename(named, gethostname())
        super().__init__(app=app, hostname=hostname, node=node, **kwargs)

    def setup_defaults(self, *args: Any, node: bool | None = None, pool: Any = None, **kwargs: Any) -> None:
        """Celery's defaults, and a node's own where the operator chose nothing."""
        if self._is_node(node, self.app):
            if not _was_chosen("pool"):
                pool = "cloudai_workers.pool:NodePool"
            settings = self.app.settings.node
            if not kwargs.get("concurrency") and settings.slots:
                kwargs["concurrency"] = settings.slots
            # The ledger bounds what a node holds (slots), not the prefetch count.
            kwargs["prefetch_multiplier"] = 0
            self.app.conf.worker_consumer = "cloudai_workers.steps:NodeConsumer"
            self._become_node()
            # Before the handler of the signal, which may end the pool: what is given back then must not come here
            # again.
            signals.worker_shutting_down.connect(self._announced, weak=False)
        super().setup_defaults(*args, pool=pool, **kwargs)

    @mistakes_told_plainly()
    def _become_node(self) -> None:
        """Raises ModuleNotFoundError, which says what to install, without the extra `worker`; ConfigurationError on a
        name that no node can have.
        """
        try:
            from cloudai_workers import log_command  # noqa: F401 - registers the control command
            from cloudai_workers.node import Node
            from cloudai_workers.steps import NodeStep
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(
                f"a node needs {missing.name}, which is not installed: pip install 'cloudai[worker]' brings it",
                name=missing.name,
            ) from missing
        self.node = Node(self.app, _checked_name(self.hostname))
        self.app.steps["worker"].add(NodeStep)

    def _announced(self, **_: Any) -> None:
        if self.node is not None:
            self.node.shutting_down()

    @staticmethod
    def _is_node(asked: bool | None, app: Any) -> bool:
        return bool(app.node_by_default if asked is None else asked)

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """A node's queues are its own and the intake for messages that no router of ours has seen."""
        if self.node is not None:
            if include:
                logger.warning(
                    "queues-ignored queues=%s: a node consumes only its own; start a worker with --no-node for others",
                    include,
                )
            self.app.conf.task_create_missing_queues = True
            include, exclude = [node_queue(self.hostname), PLACE_QUEUE], None
        super().setup_queues(include, exclude)

    def _shutdown(self, warm: bool = True) -> None:
        if self.node is None:
            super()._shutdown(warm=warm)
            return
        self.node.stop_taking()
        try:
            super()._shutdown(warm=warm)
        finally:
            self.node.leave(warm=warm and not worker_state.should_terminate)


def _checked_name(name: str) -> str:
    """A full name, as Celery has made it up (name@host, %h and its like replaced), that a node can have.

    Celery allows any text. A node's name is part of Redis keys, rows of text, folders, and labels of containers and
    metrics.

    Raises:
        ConfigurationError: it has a character that may not be there, or is too long.
    """
    if _NODE_NAME.fullmatch(name) and len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    raise ConfigurationError(
        f"-n (the node's name): given {name[:_LONGEST_NAME]!r}, allowed: letters and digits of any script, '.', '_', "
        f"'-' and '@', at most {_LONGEST_NAME} bytes with its host"
    )


def _was_chosen(option: str) -> bool:
    """Whether the operator gave an option of the command line. Celery's defaults read like choices."""
    context = click.get_current_context(silent=True)
    if context is None:
        return False
    source = context.get_parameter_source(option)
    return source is not None and source is not click.core.ParameterSource.DEFAULT
