"""The jobs that the campaign submits, and what each is to end with."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import chain, chord
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from cloudai import CloudAI
from cloudai.scheduling.errors import CloudAIError

from .witness import SCRIPT, TICK_S


@dataclass(slots=True)
class Submitted:
    """One submission: a job, or a chain or chord of several tasks."""

    kind: str
    #: All its tasks; the last one's result is the job's.
    task_ids: list[str]
    #: What the last task must return; None: it is not compared.
    expected: Any = None
    accepted: bool = False
    #: Why it was not.
    refusal: str = ""


@dataclass(slots=True)
class Load:
    """Submits at a steady pace from a thread of its own until so many jobs were accepted."""

    app: CloudAI
    witnesses: Path
    jobs: int
    load_s: float
    seed: int
    #: The image where containers can be run, "" where not.
    image: Callable[[], str]
    submitted: list[Submitted] = field(default_factory=list)
    _thread: threading.Thread | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="faults-load", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until all were accepted; then, or after that time, stop submitting."""
        assert self._thread is not None
        self._thread.join(timeout_s)
        self._stop.set()
        self._thread.join(60)

    def accepted(self) -> int:
        return sum(one.accepted for one in list(self.submitted))

    def _run(self) -> None:
        chance = random.Random(self.seed)
        every_s = self.load_s / self.jobs
        began = time.monotonic()
        # Of this thread: nobody waits for the results, and forgetting them must not look for a server that is away.
        self.app.backend.remove_pending_result = lambda result: result
        accepted = tries = 0
        while accepted < self.jobs and not self._stop.is_set():
            self._stop.wait(max(0.02, began + tries * every_s - time.monotonic()))
            tries += 1
            one = self._submit(chance)
            accepted += one.accepted

    def _submit(self, chance: random.Random) -> Submitted:
        kind = chance.choices(
            ("python", "process", "docker", "chain", "chord"), (45, 33, 8 if self.image() else 0, 8, 6)
        )[0]
        # Shorter than a lease: a Python task in a thread cannot be frozen, and must have ended when others take over.
        seconds = chance.choice((0.4, 1.0, 2.0, 3.0))
        one, send = getattr(self, f"_{kind}")(chance, seconds)
        self.submitted.append(one)
        try:
            send()
        except (CloudAIError, OperationalError, RedisError, OSError, RuntimeError) as error:
            one.refusal = f"{type(error).__name__}: {error}"[:200]
        else:
            one.accepted = True
        return one

    def _python(self, chance: random.Random, seconds: float) -> tuple[Submitted, Callable[[], Any]]:
        one = Submitted("python", [str(uuid.uuid4())], 1)
        return one, lambda: self.app.tasks["faults.work"].apply_async((seconds,), task_id=one.task_ids[0])

    def _process(self, chance: random.Random, seconds: float) -> tuple[Submitted, Callable[[], Any]]:
        return self._container("process", "faults", chance, seconds)

    def _docker(self, chance: random.Random, seconds: float) -> tuple[Submitted, Callable[[], Any]]:
        return self._container("docker", self.image(), chance, seconds)

    def _container(
        self, runner: str, image: str, chance: random.Random, seconds: float
    ) -> tuple[Submitted, Callable[[], Any]]:
        one = Submitted(runner, [str(uuid.uuid4())])
        # Some outlast a lease, so that they are still running when their node is given up.
        ticks = round(seconds * chance.choice((1, 3, 6)) / TICK_S)
        folder = str(self.witnesses)
        kwargs: dict[str, Any] = {
            "image": image, "command": ["sh", "-c", SCRIPT], "pull": "never",
            "env": {"W": folder, "K": one.task_ids[0], "N": str(ticks)},
        }  # fmt: skip
        if runner == "docker":
            kwargs.update(volumes={folder: {"bind": folder, "mode": "rw"}}, user="0:0", network="none")
        return one, lambda: self.app.tasks["cloudai.run_container"].apply_async(
            kwargs=kwargs, resources={"cpu": 1, "memory": "64MiB"}, constraints={"runner": runner},
            task_id=one.task_ids[0],
        )

    def _chain(self, chance: random.Random, seconds: float) -> tuple[Submitted, Callable[[], Any]]:
        step = self.app.tasks["faults.step"]
        ids = [str(uuid.uuid4()) for _ in range(3)]
        links = [step.s(0, seconds).set(task_id=ids[0]), *(step.s(0.2).set(task_id=i) for i in ids[1:])]
        return Submitted("chain", ids, 3), lambda: chain(*links).apply_async()

    def _chord(self, chance: random.Random, seconds: float) -> tuple[Submitted, Callable[[], Any]]:
        work, gather = self.app.tasks["faults.work"], self.app.tasks["faults.gather"]
        ids = [str(uuid.uuid4()) for _ in range(4)]
        header = [work.s(seconds).set(task_id=i) for i in ids[:3]]
        return Submitted("chord", ids, 3), lambda: chord(header, gather.s(0.2).set(task_id=ids[3])).apply_async()
