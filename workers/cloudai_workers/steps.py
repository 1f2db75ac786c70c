"""Where a node hooks into Celery's worker: one bootstep, and a consumer that ends what cannot be read."""

from __future__ import annotations

from typing import Any

from celery import bootsteps
from celery.worker.components import Pool
from celery.worker.consumer import Consumer

from cloudai.names import HEADER


class NodeStep(bootsteps.StartStopStep):  # type: ignore[misc]
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


class NodeConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer; a body that does not decode, or an unknown task, ends the attempt instead of leaking it."""

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        super().on_decode_error(message, exc)
        self._end(message, f"its body cannot be decoded: {exc!r}")

    def on_unknown_message(self, body: Any, message: Any) -> None:
        super().on_unknown_message(body, message)
        self._end(message, "it is not a task message")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        super().on_unknown_task(body, message, exc)
        self._end(message, f"no task of this name is registered on the node: {exc}", stored=True)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        super().on_invalid_task(body, message, exc)
        self._end(message, f"its message is invalid: {exc}")

    def _end(self, message: Any, reason: str, *, stored: bool = False) -> None:
        header = message.headers.get(HEADER) or {}
        if self.controller.node is not None and "attempt" in header:
            self.controller.node.end_unreadable(message.headers["id"], header["attempt"], reason, stored=stored)
