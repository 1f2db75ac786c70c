"""A scenario as the replay engine reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cloudai.scheduling.units import MILLI
from cloudai_beat.replay import Environment, Fleet, Workload
from cloudai_beat.simulation.scenario import Scenario


@dataclass(frozen=True)
class Replayable:
    """The workload, fleet and truth of a scenario; jobs and nodes keep their rows."""

    scenario: Scenario

    @cached_property
    def workload(self) -> Workload:
        """The jobs. A limit that the job outran was not kept by anybody: the engine sees the larger of the two."""
        made, trace = self.scenario, self.scenario.trace
        return Workload.of(
            made.arrival_s,
            trace.runtime_s,
            made.deadline_s,
            trace.kind,
            cpu_milli=trace.demand[:, 0],
            memory_kib=trace.demand[:, 1],
            gpu_milli=trace.demand[:, 2],
            storage_kib=trace.demand[:, 3],
            family=trace.family,
            limit=np.where(np.isnan(trace.limit_s), np.inf, trace.limit_s),
        )

    @cached_property
    def fleet(self) -> Fleet:
        """The nodes."""
        made = self.scenario
        return Fleet.of(
            made.capacity[:, 0],
            memory_kib=made.capacity[:, 1],
            gpus=made.capacity[:, 2] // MILLI,
            storage_kib=made.capacity[:, 3],
            slots=made.slots,
            names=tuple(node.name for node in made.fleet),
        )

    @cached_property
    def environment(self) -> Environment:
        """The truth about run times."""
        return Environment(
            factor=self.scenario.slowness, noise=self.scenario.noise, contention=self.scenario.theta
        )
