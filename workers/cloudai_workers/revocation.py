"""The remote command `revoke` on a node: it also reaches tasks that wait or are placed, whoever sent it.

`cloudai.control.Control.revoke` cancels in the ledger by itself; Flower, or a producer on stock Celery, only sends the
command. Every node that hears it cancels; the first one does it.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.utils.functional import maybe_list
from celery.worker import control
from celery.worker import state as worker_state
from redis.exceptions import RedisError

from cloudai.control import cancel
from cloudai.names import RUNNING

logger = logging.getLogger(__name__)

_stock_revoke = control.revoke


@control.control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: str | None = None, **kwargs: Any) -> Any:
    """Revoke tasks by id; the ledger first, so that errbacks and chords hear of those that no worker holds."""
    ours = []
    for one in maybe_list(task_id) or []:
        try:
            elsewhere = cancel(state.app, one) == RUNNING and one not in worker_state.requests
        except RedisError as error:
            logger.warning("revoke-failed task=%s: Redis is away (%s)", one, error)
            elsewhere = False
        # Celery would store REVOKED for a task that runs on another node and may well succeed.
        if not elsewhere:
            ours.append(one)
    return _stock_revoke(state, ours, terminate, signal, **kwargs)


@control.control_command(variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]")
def terminate(state: Any, signal: str, task_id: Any, **kwargs: Any) -> Any:
    """Terminate tasks by id, as `revoke` with terminate."""
    return revoke(state, task_id, terminate=True, signal=signal)
