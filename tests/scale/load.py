"""The submissions of a run, as a user makes them: `apply_async`, and `apply_many` for the many equal ones of a burst.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from cloudai import CloudAI
from cloudai.scheduling.errors import CloudAIError
from cloudai.scheduling.requests import parse_request

from .plan import Job, Plan, settings_of, to_options


@dataclass(slots=True)
class Submitted:
    """What was accepted in a phase, and how long it took."""

    #: Kind of job (`Job.kind`) by task id.
    kinds: dict[str, str] = field(default_factory=dict)
    #: Of each `apply_async`, seconds.
    seconds: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    took_s: float = 0.0


class Load:
    """Submits in the caller's thread."""

    def __init__(self, plan: Plan, url: str) -> None:
        self.app = CloudAI("scale", settings=settings_of(plan, url), broker=url, set_as_current=False)
        self.app.conf.task_ignore_result = True

        @self.app.task(name="scale.work", shared=False)
        def work(seconds: float, kind: str) -> None:
            """A node of a scale run waits so long."""

        self._work: Any = work
        self._defaults = self.app.request_defaults
        #: How often a submission looked at the waiting set, because it waits although something seemed to fit.
        self.dispatches = 0
        self._count_dispatches()

    def _count_dispatches(self) -> None:
        dispatcher: Any = self.app.deployment.dispatcher
        run = dispatcher.run

        def counted() -> int:
            self.dispatches += 1
            return int(run())

        dispatcher.run = counted

    def close(self) -> None:
        """Close every connection."""
        self.app.deployment.client.close()
        self.app.pool.force_close_all()
        self.app.close()

    def pace(self, jobs: Iterable[Job], count: int, over_s: float) -> Submitted:
        """Submit `count` jobs evenly over that time, as fast as possible where that is too slow."""
        found, begun = Submitted(), time.monotonic()
        for i, job in enumerate(jobs):
            time.sleep(max(0.0, begun + i * over_s / count - time.monotonic()))
            self._one(job, found)
        found.took_s = time.monotonic() - begun
        return found

    def burst(self, jobs: Iterable[Job]) -> Submitted:
        """Submit all as fast as possible; equal ones together."""
        found, begun = Submitted(), time.monotonic()
        together: dict[str, list[Job]] = defaultdict(list)
        single: list[Job] = []
        for job in jobs:
            if job.kind in ("usual", "expires") and job.deadline_s is None:
                together[f"{job.kind} {to_options(job)}"].append(job)
            else:
                single.append(job)
        for equal in together.values():
            calls = [(self._arguments(job), {}) for job in equal]
            options = to_options(equal[0])
            if equal[0].kind == "expires":
                options["expires"] = equal[0].after_s
            for result in self._work.apply_many(calls, **options):
                found.kinds[result.id] = equal[0].kind
        for job in single:
            self._one(job, found)
        found.took_s = time.monotonic() - begun
        return found

    def _one(self, job: Job, found: Submitted) -> None:
        options = to_options(job)
        if job.deadline_s is not None:
            options["deadline"] = timedelta(seconds=job.deadline_s)
        if job.kind == "eta":
            options["countdown"] = job.after_s
        elif job.kind == "expires":
            options["expires"] = job.after_s
        begun = time.perf_counter()
        try:
            result = self._work.apply_async(self._arguments(job), **options)
        except CloudAIError as error:
            found.refused.append(f"{type(error).__name__}: {error}"[:200])
            return
        found.seconds.append(time.perf_counter() - begun)
        found.kinds[result.id] = job.kind

    def _arguments(self, job: Job) -> tuple[float, str]:
        request = parse_request(job.resources, now=0.0, defaults=self._defaults)
        return job.work_s, str(request.task_type)
