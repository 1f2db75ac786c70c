"""A message on its way into the ledger, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Submission:
    """One message on its way into the ledger."""

    task_id: str
    #: Same for every delivery of this message; another one for each publication (retry, replace).
    nonce: str
    #: 1/1000 core.
    cpu_milli: int
    memory_kib: int
    #: 1/1000 device.
    gpu_milli: int
    storage_kib: int
    #: What matters for placement, as one short string; waiting tasks are grouped by it.
    shape: str
    task_type: str
    #: k * tau, seconds: what the deadline is from arrival, unless it is given.
    sla_s: float
    #: Epoch seconds; None: arrival + sla_s.
    deadline: float | None
    #: Epoch seconds before which the task must not start; 0: at once.
    eta: float
    #: Epoch seconds after which it must not start; 0: never.
    expires: float
    #: Celery's priority, 0 first; orders tasks whose deadline falls in the same second.
    priority: int
    #: Celery name of the task.
    name: str
    retries: int
    #: The request as JSON, to score a waiting task again.
    request: str
    #: The whole Celery message, JSON.
    message: str
    #: Record of the decision, "" where none was made.
    decision: str
    #: Why Round-Robin decided in place of the scheduler, "" if it did not.
    fallback: str = ""
    #: The attempt whose body publishes its own task again (retry, replace); 0: a submission from outside.
    from_attempt: int = 0
    #: Kept with the entry: pairs of field name and value.
    extra: tuple[tuple[str, str | int | float], ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """What became of a submission."""

    #: placed | waiting | delayed | next | duplicate | busy | revoked | stale | full
    status: str
    node: str
    attempt: int
    #: Server time, epoch seconds.
    now: float
    #: What changed in the fleet since the caller's version, for `fleet.read_changes`.
    changes: str


def read_placement(reply: bytes) -> Placement:
    """The answer of the place script for one task."""
    head, _, changes = reply.decode().partition("\n")
    status, node, attempt, now = head.split("\t")
    return Placement(status=status, node=node, attempt=int(attempt), now=float(now), changes=changes)
