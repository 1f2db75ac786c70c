"""How a task ends that no worker ends: cancelled while it waited, expired, lost for good.

The ledger has closed it already and lists it as unsettled. Here its result is stored, and errbacks and chords hear of
it, in any process; done twice, the second time changes nothing that the first one stored.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import states
from celery.app.task import Context
from celery.exceptions import TaskRevokedError, WorkerLostError
from kombu.message import Message
from kombu.utils.json import loads

from cloudai.names import CANCELLED, EXPIRED

logger = logging.getLogger(__name__)


def settle(app: Any, task_id: str) -> None:
    """Store the result of a task that ended without a worker, then tell the ledger that this is done."""
    ledger = app.deployment.ledger
    entry = ledger.entry(task_id)
    if not entry:
        ledger.settled(task_id)
        return
    reason = entry.get("reason") or entry["state"]
    backend = app.backend
    if backend.get_state(task_id) not in states.READY_STATES:
        request = _context(ledger.message(task_id), task_id)
        if entry["state"] in (CANCELLED, EXPIRED):
            backend.mark_as_revoked(task_id, reason, request=request, store_result=True)
            _errbacks(backend, request, TaskRevokedError(reason))
        else:
            backend.mark_as_failure(task_id, WorkerLostError(reason), request=request, store_result=True)
    ledger.settled(task_id)
    logger.info("task-settled task=%s state=%s reason=%s", task_id, entry["state"], reason)


def _errbacks(backend: Any, request: Context, error: Exception) -> None:
    # `mark_as_failure` calls them; for a revoked task stock Celery does not, and a caller would never hear of it.
    if request.errbacks:
        backend._call_task_errbacks(request, error, None)


def _context(raw: bytes | None, task_id: str) -> Context:
    """The request as Celery's result backend wants it, from the message that the ledger kept."""
    if raw is None:
        return Context(id=task_id)
    payload = loads(raw.decode())
    headers = dict(payload["headers"])
    try:
        message = Message(
            body=payload["body"],
            content_type=payload.get("content-type"),
            content_encoding=payload.get("content-encoding"),
            properties=payload.get("properties") or {},
            headers=headers,
            accept=["json"],
        )
        body_encoding = (payload.get("properties") or {}).get("body_encoding")
        if body_encoding == "base64":
            import base64

            message.body = base64.b64decode(payload["body"])
        args, kwargs, embed = message.decode()
    except Exception as error:
        logger.warning("task=%s: its message cannot be read, no errback or chord hears of its end: %r", task_id, error)
        return Context(id=task_id)
    return Context({**headers, **embed, "args": args, "kwargs": kwargs, "id": task_id})
