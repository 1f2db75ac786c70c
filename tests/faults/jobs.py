"""The project whose jobs the campaign runs: nodes and beat load it as `-A faults.jobs`."""

from __future__ import annotations

import os
import sys
from typing import Any

from cloudai import CloudAI
from cloudai.settings import Settings

from .witness import attend

ONE = {"cpu": 1, "memory": "64MiB"}
#: Environment variable with the folder of the witnesses.
WITNESSES = "FAULTS_WITNESSES"
#: How often beat submits, seconds.
BEAT_EVERY_S = 3.0


def build(settings: Settings | None = None) -> CloudAI:
    """The application; nodes read their settings from the environment."""
    app = CloudAI("faults", settings=settings, node_by_default=True, set_as_current=False)
    app.conf.beat_schedule = {"tick": {"task": "faults.work", "schedule": BEAT_EVERY_S, "args": (0.2,)}}

    @app.task(name="faults.work", resources=ONE, bind=True, shared=False)
    def work(self: Any, seconds: float) -> int:
        attend(os.environ[WITNESSES], self.request.id, seconds)
        return 1

    @app.task(name="faults.step", resources=ONE, bind=True, shared=False)
    def step(self: Any, so_far: int, seconds: float) -> int:
        attend(os.environ[WITNESSES], self.request.id, seconds)
        return so_far + 1

    @app.task(name="faults.gather", resources=ONE, bind=True, shared=False)
    def gather(self: Any, parts: list[int], seconds: float) -> int:
        attend(os.environ[WITNESSES], self.request.id, seconds)
        return sum(parts)

    return app


if "celery" in sys.argv[0]:
    app = build()
