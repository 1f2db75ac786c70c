"""The body of `run_container` on a node: from a claimed Celery task to a runner's job and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from celery.exceptions import Ignore, Reject

from cloudai.container_task import checked_spec
from cloudai.containers.errors import ContainerError, EngineUnavailable, Refused, Stopped, Superseded
from cloudai.containers.result import ContainerResult
from cloudai.names import HEADER
from cloudai.scheduling.errors import InvalidRequest
from cloudai_workers import this_node
from cloudai_workers.clerk import Measured
from cloudai_workers.node import Node
from cloudai_workers.pool import jobs
from cloudai_workers.runners.base import Job, Limits, Reservation
from cloudai_workers.runners.engine_errors import EngineAway
from cloudai_workers.running import running


def run_container(task: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Run one attempt; returns the record as JSON.

    Raises the errors of cloudai.containers.errors, Ignore when it was stopped, or Reject when it did not begin.
    """
    node = this_node.current()
    header = getattr(task.request, HEADER, None) or {}
    if "attempt" in header and (node is None or node.pid != os.getpid()):
        raise EngineUnavailable(
            "this node runs its tasks in pool processes (-P prefork), which cannot look after containers: start nodes "
            "for container jobs without -P, or pin the job to one with constraints"
        )
    if node is None or "attempt" not in header:
        raise EngineUnavailable(
            "this worker is not a node, or nobody placed the message, so nothing was reserved for the container: "
            "submit with apply_async, and start nodes with `celery -A cloudai worker`"
        )
    job = _job(task.request.id, header, kwargs, node)
    key = (job.task_id, job.attempt)
    with running(key) as handle:
        jobs.on_stop(lambda: handle.stop("revoked"))
        node.will_run_job(handle)
        try:
            result = node.runner.run(job, handle)
        except EngineAway as error:
            node.announcement.look_at_runner()
            raise Reject(f"it did not begin on {node.name}: {error.detail}", requeue=True) from error
        except ContainerError as error:
            _note(node, key, error.result)
            if isinstance(error, (Stopped, Superseded)):
                # Its result is REVOKED already, or belongs to the attempt that took over.
                raise Ignore from error
            raise
        _note(node, key, result)
        return result.to_json()


def _job(task_id: str, header: Mapping[str, Any], kwargs: Mapping[str, Any], node: Node) -> Job:
    settings = node.app.settings
    # Checked at submission; checked again here, because what is in Redis need not have come from our producer.
    try:
        spec = checked_spec(kwargs, settings)
    except InvalidRequest as error:
        raise Refused(str(error)) from error
    cpu_milli, memory_kib, _, storage_kib = header["reserved"]
    return Job(
        task_id=task_id,
        attempt=header["attempt"],
        node=node.name,
        spec=spec,
        reservation=Reservation(
            cpu_milli=cpu_milli,
            memory_kib=memory_kib,
            gpu_devices=node.announcement.gpu_ids(header["devices"]),
            storage_kib=storage_kib,
        ),
        limits=Limits(tail_bytes=settings.limits.tail_kib * 1024),
        waiting_s=header["waiting"],
        adopts=int(header.get("adopts") or 0),
    )


def _note(node: Node, key: tuple[str, int], result: ContainerResult | None) -> None:
    """What was measured goes with the report of the attempt's end."""
    if result is None:
        return
    usage: dict[str, float | int | str] = {"exit_code": result.exit_code, "pull_s": round(result.pull_s, 6)}
    if result.cpu_seconds is not None:
        usage["cpu_seconds"] = round(result.cpu_seconds, 6)
    if result.peak_memory is not None:
        usage["peak_memory"] = result.peak_memory
    node.clerk.measured(*key, Measured(result.run_s, usage))

