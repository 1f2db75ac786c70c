"""Remote control: revoking reaches a task in every state, not only one that a worker holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.app.control import Control as CeleryControl

from cloudai.endings import settle
from cloudai.names import CANCELLED


class Control(CeleryControl):
    """Celery's remote control; `revoke` also cancels tasks that wait or were placed."""

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Any = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        **kwargs: Any,
    ) -> Any:
        """Cancel tasks. A waiting or placed one ends at once; a running one is stopped when `terminate` is set."""
        for one in [task_id] if isinstance(task_id, str) else list(task_id):
            cancel(self.app, one)
        return super().revoke(task_id, destination, terminate, signal, **kwargs)


def cancel(app: Any, task_id: str, reason: str = "revoked") -> str:
    """Cancel a task in the ledger and store its result if that ended it; returns its state, or `unknown`."""
    state, _ = app.deployment.ledger.cancel(task_id, reason)
    if state == CANCELLED:
        settle(app, task_id)
    return str(state)
