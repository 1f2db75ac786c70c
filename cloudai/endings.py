"""How a task ends that no worker ends: cancelled while it waited, expired, lost for good.

The ledger has closed it already and lists it as unsettled. Here its result is stored, and errbacks and chords hear of
it, in any process; done twice, the second time changes nothing that the first one stored.
"""

from __future__ import annotations

import base64
import logging
from typing import Any

from celery import states
from celery.app.task import Context
from celery.exceptions import TaskRevokedError, WorkerLostError
from kombu.exceptions import OperationalError
from kombu.message import Message
from kombu.serialization import prepare_accept_content
from kombu.utils.json import loads

from cloudai.names import CANCELLED, EXPIRED
from cloudai.state.full_memory import although_full

logger = logging.getLogger(__name__)

#: For so long one process settles a task alone, milliseconds; then another may do it after all.
_ALONE_MS = 30_000


def settle(app: Any, task_id: str) -> None:
    """Store the result of a task that ended without a worker, then tell the ledger that this is done."""
    ledger = app.deployment.ledger
    # Two that settle the same task at once would call its errbacks twice.
    alone = ledger.keys.settling(task_id)
    if not although_full(ledger.client, "SET", alone, 1, "NX", "PX", _ALONE_MS):
        return
    unsettled = ledger.client.zscore(ledger.keys.unsettled, task_id) is not None
    entry = ledger.entry(task_id) if unsettled else {}
    if entry:
        reason = entry.get("reason") or entry["state"]
        revoked = entry["state"] in (CANCELLED, EXPIRED)
        error: Exception = TaskRevokedError(reason) if revoked else WorkerLostError(reason)
        # Its result may be there: a node died between storing it and telling so. REVOKED may come from a worker
        # that heard of the revocation, and tells nobody: errbacks and chord must still hear.
        if app.backend.get_state(task_id) not in (states.SUCCESS, states.FAILURE):
            end_without_worker(app, task_id, ledger.message(task_id), error)
            _tell_monitors(app, task_id, error, expired=entry["state"] == EXPIRED)
        logger.info("task-settled task=%s state=%s reason=%s", task_id, entry["state"], reason)
    ledger.settled(task_id)
    ledger.client.delete(alone)


def end_without_worker(app: Any, task_id: str, message: bytes | None, error: Exception) -> None:
    """Store the end of a task that no worker could run, and let its errbacks and its chord hear of it.

    TaskRevokedError is stored as REVOKED, everything else as FAILURE.
    """
    backend = app.backend
    request = _context(app, message, task_id)
    keep = not request.ignore_result
    if not isinstance(error, TaskRevokedError):
        try:
            backend.mark_as_failure(task_id, error, request=request, store_result=keep)
        except away(backend):
            raise
        except Exception:
            logger.exception("errback-failed task=%s: its result is stored", task_id)
        return
    backend.mark_as_revoked(task_id, str(error), request=request, store_result=keep)
    if request.errbacks:
        # `mark_as_failure` calls them; for a revoked task stock Celery does not, and a caller would never hear of it.
        try:
            backend._call_task_errbacks(request, error, None)
        except away(backend):
            raise
        except Exception:
            logger.exception("errback-failed task=%s: its result is stored", task_id)


def repeat_chord_part(app: Any, task_id: str, message: bytes) -> None:
    """Tell the chord of a task whose result is stored, in case that its node died before it could. May be repeated."""
    request = _context(app, message, task_id)
    if request.chord:
        meta = app.backend.get_task_meta(task_id)
        app.backend.on_chord_part_return(request, meta["status"], meta["result"])


def away(backend: Any) -> tuple[type[Exception], ...]:
    """What is raised when the result store or the broker cannot be reached: then the end is told again later."""
    return (OperationalError, *getattr(backend, "connection_errors", ()))


def _tell_monitors(app: Any, task_id: str, error: Exception, *, expired: bool) -> None:
    try:
        with app.events.default_dispatcher() as dispatcher:
            if isinstance(error, TaskRevokedError):
                dispatcher.send("task-revoked", uuid=task_id, terminated=False, signum=None, expired=expired)
            else:
                dispatcher.send("task-failed", uuid=task_id, exception=repr(error), traceback="")
    except Exception as refused:
        # A submitter's user may not send events; its result is stored all the same.
        logger.warning("monitors-not-told task=%s: %s", task_id, refused)


def _context(app: Any, raw: bytes | None, task_id: str) -> Context:
    """The request as Celery's result backend wants it, from the message that the ledger kept."""
    if raw is None:
        return Context(id=task_id)
    try:
        payload = loads(raw.decode())
        properties = payload.get("properties") or {}
        body = payload["body"]
        message = Message(
            body=base64.b64decode(body) if properties.get("body_encoding") == "base64" else body,
            content_type=payload.get("content-type"),
            content_encoding=payload.get("content-encoding"),
            properties=properties,
            headers=dict(payload["headers"]),
            accept=prepare_accept_content(app.conf.accept_content),
        )
        args, kwargs, embed = message.decode()
    except Exception as error:
        logger.warning(
            "message-unreadable task=%s: no errback or chord hears of its end; cancel what waits for it (%r)",
            task_id, error,
        )  # fmt: skip
        return Context(id=task_id)
    return Context({**message.headers, **embed, "args": args, "kwargs": kwargs, "id": task_id})
