"""The control command `cloudai_logs`: a node streams the output of a job to whoever asked.

A thread of its own reads the runner's log and publishes it on the channel that the asker listens to, so that
neither the worker's consumer nor the job waits for it. When nobody listens any more, it ends.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import redis
from celery.worker.control import inspect_command

from cloudai.job_output import COMMAND, END, ERROR, OUTPUT
from cloudai_workers import this_node
from cloudai_workers.node import Node

logger = logging.getLogger(__name__)

#: Largest frame, bytes.
_FRAME_BYTES = 64 * 1024
#: Streams at once; each is one thread.
_MOST_STREAMS = 32

_streams = threading.BoundedSemaphore(_MOST_STREAMS)


@inspect_command(name=COMMAND, args=[("task_id", str), ("channel", str), ("follow", bool)])
def cloudai_logs(state: Any, task_id: str, channel: str, follow: bool = False, **_: Any) -> dict[str, str]:
    """Stream the output of a job of this node to a channel; with `follow`, until the job ends."""
    node = this_node.current()
    if node is None:
        return {"error": "this worker is not a node"}
    if not _streams.acquire(blocking=False):
        return {"error": f"node {node.name} streams {_MOST_STREAMS} outputs already; try again later"}
    threading.Thread(
        target=_stream, args=(node, task_id, channel, follow), name=f"cloudai-logs-{task_id}", daemon=True
    ).start()
    return {"ok": "streaming"}


def _stream(node: Node, task_id: str, channel: str, follow: bool) -> None:
    client = node.deployment.client
    try:
        try:
            for frame in _frames(node.runner.logs(task_id, follow)):
                if not client.publish(channel, OUTPUT + frame):
                    return
        except LookupError as error:
            client.publish(channel, ERROR + str(error.args[0]).encode())
            return
        except redis.RedisError:
            raise
        except Exception as error:
            logger.exception("logs-failed task=%s", task_id)
            client.publish(channel, ERROR + f"node {node.name} cannot read the output: {error}".encode())
            return
        client.publish(channel, END)
    except redis.RedisError as error:
        logger.warning("logs-stopped task=%s: Redis is away (%s)", task_id, error)
    finally:
        _streams.release()


def _frames(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _FRAME_BYTES):
            yield chunk[start : start + _FRAME_BYTES]
