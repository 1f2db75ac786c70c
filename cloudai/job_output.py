"""The output of a container job, while it runs and afterwards, fetched from the node that has it.

The node streams it over a Redis channel that only lives as long as somebody listens; nothing is stored.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cloudai.containers.errors import ContainerError
from cloudai.names import FINAL_STATES, RUNNING
from cloudai.scheduling.errors import CloudAIError, InvalidRequest
from cloudai.state.fleet import DRAINING, UP

if TYPE_CHECKING:
    from cloudai.app import CloudAI

#: Control command of a node (cloudai_workers/log_command.py).
COMMAND = "cloudai_logs"

#: How a frame begins: output, the end, or the reason why there is none.
OUTPUT, END, ERROR = b"o", b"e", b"x"

#: How long a node may take to answer a control command, seconds.
_ANSWER_TIMEOUT_S = 5.0
#: Between two looks at a task that has not started, or whose node is silent, seconds.
_LOOK_EVERY_S = 0.5


def container_record(value: Any) -> dict[str, Any] | None:
    """The record of a container run: the result itself, or what its error carries; None where nothing ran."""
    if isinstance(value, ContainerError):
        return None if value.result is None else value.result.to_json()
    if isinstance(value, Mapping) and "exit_code" in value and "stdout_tail" in value:
        return dict(value)
    return None


class NoOutputError(CloudAIError):
    """There is no output of this task."""


def stream_output(app: CloudAI, task_id: str, *, follow: bool) -> Iterator[bytes]:
    """The output of the task's latest attempt, as it came; with `follow`, until the task has ended.

    Raises:
        InvalidRequest: the task is not known.
        NoOutputError: it has none (yet), or the node that has it does not answer.
    """
    ledger = app.deployment.ledger
    shown = 0
    while True:
        entry = ledger.entry(task_id)
        state = entry.get("state", "")
        attempt = int(entry.get("attempt") or 0)
        if not entry or state in FINAL_STATES:
            if attempt and attempt == shown:
                return
            yield from _of_ended(app, task_id, entry.get("node", ""))
            return
        if not follow:
            if state != RUNNING:
                raise NoOutputError(
                    f"task {task_id} is {state}: it has no output yet; `--follow` waits for it"
                )
            yield from _from_node(app, entry["node"], task_id, follow=False)
            return
        if state == RUNNING and attempt != shown:
            try:
                for chunk in _from_node(app, entry["node"], task_id, follow=True):
                    shown = attempt
                    yield chunk
            except NoOutputError:
                # Its image is being fetched, or it has ended a moment ago: the ledger tells in time.
                pass
        time.sleep(_LOOK_EVERY_S)


def _of_ended(app: CloudAI, task_id: str, node: str) -> Iterator[bytes]:
    """The full output where its node has kept it (node.log_dir), else the tails of the result."""
    result = app.AsyncResult(task_id)
    record = container_record(result.result) if result.ready() else None
    node = node or (record or {}).get("node", "")
    whole = _truncated(record)
    if node and whole and app.deployment.fleet.entry(node).get("state") in (UP, DRAINING):
        try:
            yield from _from_node(app, node, task_id, follow=False)
        except NoOutputError:
            pass
        else:
            return
    if record is None:
        if not result.ready() and not node:
            allowed = "the id of a container job that has not ended too long ago"
            raise InvalidRequest("task_id", task_id, allowed)
        raise NoOutputError(f"task {task_id} has no output: nothing of it ran, or it is no container job")
    for name in ("stdout_tail", "stderr_tail"):
        yield record[name].encode()


def _truncated(record: dict[str, Any] | None) -> bool:
    return record is None or record["stdout_truncated"] or record["stderr_truncated"]


def _from_node(app: CloudAI, node: str, task_id: str, *, follow: bool) -> Iterator[bytes]:
    deployment = app.deployment
    channel = deployment.keys.output(secrets.token_hex(8))
    with deployment.client.pubsub(ignore_subscribe_messages=False) as listener:
        listener.subscribe(channel)
        # The node's first frame must find us: wait for the server to say that we are subscribed.
        listener.get_message(timeout=_ANSWER_TIMEOUT_S)
        replies = app.control.broadcast(
            COMMAND,
            arguments={"task_id": task_id, "channel": channel, "follow": follow},
            destination=[node],
            reply=True,
            limit=1,
            timeout=_ANSWER_TIMEOUT_S,
        )
        if not replies:
            raise NoOutputError(f"node {node} does not answer; `cloudai nodes` shows when it was last heard")
        answer = replies[0].get(node) or {}
        if "error" in answer:
            raise NoOutputError(str(answer["error"]))
        yield from _frames(app, listener, node)


def _frames(app: CloudAI, listener: Any, node: str) -> Iterator[bytes]:
    while True:
        message = listener.get_message(ignore_subscribe_messages=True, timeout=_ANSWER_TIMEOUT_S)
        if message is None:
            # A silent job, or a node that is gone.
            if app.deployment.fleet.entry(node).get("state") not in (UP, DRAINING):
                raise NoOutputError(f"node {node} is gone; its task is placed elsewhere after its lease")
            continue
        kind, data = message["data"][:1], message["data"][1:]
        if kind == OUTPUT:
            yield data
        elif kind == ERROR:
            raise NoOutputError(data.decode())
        else:
            return
