"""The tasks of these tests: a user's own Celery project on a CloudAI application. Nodes run it as `celery -A jobs`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from celery.exceptions import Ignore, Reject

from cloudai import CloudAI
from cloudai.settings import Settings

ONE = {"cpu": 1, "memory": "64MiB"}


def note(path: str, line: str) -> int:
    """Append a line to a witness; returns how many it has now."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    return len(Path(path).read_text(encoding="utf-8").splitlines())


def wait_at(request: Any, witness: str, gate: str) -> str:
    """Say who runs it, as which attempt, and wait for the file `gate`; returns the node."""
    note(witness, f"{request.hostname} {request.cloudai['attempt']}")
    while not os.path.exists(gate):
        time.sleep(0.01)
    return str(request.hostname)


def build(settings: Settings | None = None, **options: Any) -> CloudAI:
    """The application; nodes read their settings from the environment."""
    app = CloudAI("jobs", settings=settings, node_by_default=True, set_as_current=False, **options)
    ours = {"shared": False}

    @app.task(name="jobs.plain_add", **ours)
    def plain_add(x: int, y: int) -> int:
        return x + y

    @app.task(name="jobs.add", resources=ONE, **ours)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="jobs.total", resources=ONE, **ours)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="jobs.fail", resources=ONE, **ours)
    def fail(message: str) -> None:
        raise ValueError(message)

    @app.task(name="jobs.hold", resources=ONE, bind=True, **ours)
    def hold(self: Any, witness: str, gate: str) -> str:
        """Runs until the file `gate` is there."""
        return wait_at(self.request, witness, gate)

    @app.task(name="jobs.late_hold", resources=ONE, bind=True, acks_late=True, **ours)
    def late_hold(self: Any, witness: str, gate: str) -> str:
        return wait_at(self.request, witness, gate)

    @app.task(name="jobs.mark", resources=ONE, bind=True, **ours)
    def mark(self: Any, witness: str, line: str) -> str:
        note(witness, line)
        return line

    @app.task(name="jobs.tell", resources=ONE, **ours)
    def tell(parts: list[Any], witness: str) -> list[Any]:
        note(witness, "told")
        return parts

    @app.task(name="jobs.reject", resources=ONE, **ours)
    def reject(witness: str, times: int, requeue: bool) -> str:
        if note(witness, "ran") <= times:
            raise Reject("not now", requeue=requeue)
        return "taken"

    @app.task(name="jobs.ignore", resources=ONE, bind=True, **ours)
    def ignore(self: Any) -> None:
        self.update_state(state="SHELVED", meta={"why": "the task says so"})
        raise Ignore

    @app.task(name="jobs.retry", resources=ONE, bind=True, max_retries=5, **ours)
    def retry(self: Any, times: int, countdown: float, again: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fails `times` times; tells what it was given in the end."""
        if self.request.retries < times:
            raise self.retry(countdown=countdown, **(again or {}))
        return dict(self.request.cloudai, retries=self.request.retries)

    @app.task(name="jobs.flaky", resources=ONE, autoretry_for=(KeyError,), default_retry_delay=0, **ours)
    def flaky(witness: str) -> int:
        runs = note(witness, "ran")
        if runs < 3:
            raise KeyError(runs)
        return runs

    @app.task(name="jobs.replaced", resources=ONE, bind=True, **ours)
    def replaced(self: Any, x: int) -> None:
        raise self.replace(add.s(x, 1))

    @app.task(name="jobs.replaced_by_chain", resources=ONE, bind=True, **ours)
    def replaced_by_chain(self: Any, x: int) -> None:
        raise self.replace(add.s(x, 1) | add.s(10))

    @app.task(name="jobs.die", resources=ONE, bind=True, **ours)
    def die(self: Any, witness: str = "") -> str:
        """Takes its pool process along, unless the witness knows it."""
        if witness and note(witness, "ran") > 1:
            return "lived"
        os._exit(9)

    @app.task(name="jobs.die_again", resources=ONE, acks_late=True, reject_on_worker_lost=True, **ours)
    def die_again(witness: str) -> str:
        return die.run(witness)

    @app.task(name="jobs.kill_node", resources=ONE, **ours)
    def kill_node(witness: str) -> None:
        """Takes its whole worker along, as the kernel does when memory is out."""
        note(witness, "ran")
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task(name="jobs.leave", resources=ONE, **ours)
    def leave() -> None:
        sys.exit(3)

    @app.task(name="jobs.slow", resources=ONE, **ours)
    def slow(witness: str) -> str:
        note(witness, "began")
        while True:
            time.sleep(0.01)

    @app.task(name="jobs.heard", **ours)
    def heard(request: Any, error: Any, traceback: Any) -> None:
        """An errback: who ended, and how."""
        note(os.environ["JOBS_HEARD"], f"{request.id} {type(error).__name__}")

    return app


if "celery" in sys.argv[0]:
    app = build()
