"""Where a node hooks into Celery's worker: one bootstep, and a consumer that ends what cannot be read."""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from celery.exceptions import NotRegistered
from celery.worker.components import Pool
from celery.worker.consumer import Consumer

import cloudai_workers.revocation  # noqa: F401 - registers the command
from cloudai.names import HEADER
from cloudai_workers import this_node

logger = logging.getLogger(__name__)


class NodeStep(bootsteps.StartStopStep):
    """Joins the fleet when the pool is up and before anything is consumed; survives broker reconnects."""

    requires = (Pool,)

    def include_if(self, worker: Any) -> bool:
        """Only in a worker that is a node."""
        return worker.node is not None

    def start(self, worker: Any) -> None:
        """Register; NodeRefused ends the worker."""
        worker.node.join(worker)

    def stop(self, worker: Any) -> None:
        """Nothing: the worker's shutdown leaves the fleet after the pool has finished."""

    def terminate(self, worker: Any) -> None:
        """Nothing, as for stop."""


class NodeConsumer(Consumer):
    """Celery's consumer; a body that does not decode, or an unknown task, ends the attempt instead of leaking it."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's; a body of a shape that its strategies do not expect ends the attempt, not the worker."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            try:
                handle(message)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                if message.acknowledged:
                    raise
                self.on_invalid_task(None, message, error)

        return on_task_received

    def cancel_active_requests(self) -> None:
        """Celery's, at a cold shutdown, from the signal's handler and before Celery's signal of it: what is given back
        now must not come here again.
        """
        node = this_node.current()
        if node is not None:
            node.shutting_down()
        super().cancel_active_requests()

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """As Celery's; the attempt ends."""
        super().on_decode_error(message, exc)
        self._end(message, ValueError(f"its body cannot be decoded: {exc!r}"))

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """As Celery's; the attempt ends."""
        super().on_unknown_message(body, message)
        self._end(message, ValueError("it is not a task message"))

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """In place of Celery's, whose errbacks and chords hear nothing; the attempt ends."""
        if not self._is_claimed(message):
            super().on_unknown_task(body, message, exc)
            return
        name = message.headers["task"]
        logger.error(
            "task-unknown task=%s name=%s: its module is not imported on this node", message.headers["id"], name
        )
        message.ack_log_error(logger, self.connection_errors)
        self._end(message, NotRegistered(name))

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """As Celery's; the attempt ends."""
        super().on_invalid_task(body, message, exc)
        self._end(message, ValueError(f"its message is invalid: {exc}"))

    def _is_claimed(self, message: Any) -> bool:
        header = message.headers.get(HEADER) or {}
        return self.controller.node is not None and "attempt" in header

    def _end(self, message: Any, error: Exception) -> None:
        if self._is_claimed(message):
            headers = message.headers
            self.controller.node.deliveries.end_unreadable(headers["id"], headers[HEADER]["attempt"], error)
