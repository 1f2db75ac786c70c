"""One repetition of a simulation: a part of the trace, a fleet with its true speeds, deadlines and noise.

Everything here is drawn once for a seed and shared by all policies (common random numbers), so that they differ by what
they decide and by nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cloudai.scheduling.task_types import TASK_TYPES
from cloudai_beat.simulation.fleets import SimulatedNode, check_holds, drawn_fleet, with_speeds
from cloudai_beat.simulation.workload import FloatColumn, IntColumn, Trace

#: Multiplier of the true run time that gives the deadline, drawn uniformly where none is given (spec section 3).
K_RANGE = (1.5, 2.5)

#: Scatter of the factor of a (type, node) pair, and of one run about its expectation (sigma of the logarithm).
PAIR_SIGMA, NOISE_SIGMA = 0.25, 0.1

#: What a run suffers from its neighbours: the weights are drawn between nothing and the defaults of spec section 6, so
#: that nobody knows them beforehand.
CONTENTION_MOST = (0.1, 0.1, 0.3, 0.2)

LOAD_DEFAULT, LOAD_MOST = 0.6, 10.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What a user asked for."""

    #: nodes of a drawn fleet
    nodes: int = 16
    #: fastest over slowest node
    speed_spread: float = 4.0
    #: nodes by hand; None: drawn
    fleet: tuple[SimulatedNode, ...] | None = None
    #: offered load
    load: float = LOAD_DEFAULT
    #: deadline over true run time; None: drawn from K_RANGE
    k: float | None = None
    #: jobs in a row of the trace; None: all
    jobs: int | None = None


@dataclass(frozen=True)
class Scenario:
    """Arrays for the replay: n jobs, m nodes. Times are s; amounts are in the integer units of `Trace.demand`."""

    trace: Trace
    #: (n,) rescaled to the offered load
    arrival_s: FloatColumn
    #: (n,) absolute, by the clock of `arrival_s`
    deadline_s: FloatColumn
    fleet: tuple[SimulatedNode, ...]
    #: (m, 4)
    capacity: IntColumn
    #: (m,)
    slots: IntColumn
    #: (6, m): run time of a type on an idle node over its run time on the machine of the trace
    slowness: FloatColumn
    #: (n,) factor of each run, the same wherever it runs
    noise: FloatColumn
    #: (4,): weights of the contention (cpu, memory and gpu ratio, load), as in the predicted run time
    theta: FloatColumn
    #: most demanded resource, by its place in `Trace.demand`
    scarce: int
    seed: int

    def __len__(self) -> int:
        return len(self.trace)

    def part(self, start: int, end: int) -> Scenario:
        """The jobs from `start` up to but without `end`; they begin at time 0."""
        begin = self.arrival_s[start]
        return replace(
            self,
            trace=self.trace.part(start, end - start),
            arrival_s=self.arrival_s[start:end] - begin,
            deadline_s=self.deadline_s[start:end] - begin,
            noise=self.noise[start:end],
        )

    def best_idle_s(self) -> FloatColumn:
        """(n,): run time on the fastest idle node that could hold the job, s."""
        demand, kinds = self.trace.demand, self.trace.kind
        shapes, inverse = np.unique(np.column_stack((demand, kinds)), axis=0, return_inverse=True)
        holds = (shapes[:, None, :4] <= self.capacity[None]).all(axis=2)
        ratio = np.divide(
            shapes[:, None, :4], self.capacity[None], out=np.zeros((len(shapes), *self.capacity.shape)),
            where=self.capacity[None] > 0,
        )  # fmt: skip
        factor = self.slowness[shapes[:, 4]] * (1.0 + ratio[..., :3] @ self.theta[:3])
        best = np.where(holds, factor, np.inf).min(axis=1)
        found: FloatColumn = self.trace.runtime_s * self.noise * best[inverse.reshape(-1)]
        return found


def make_scenario(trace: Trace, setting: Setting, seed: int) -> Scenario:
    """The repetition of that seed.

    Raises:
        TraceRefused: a job is larger than every node of the given fleet.
    """
    rng = np.random.default_rng((seed, 7_481))
    part = _part(trace, setting.jobs, seed)
    # The fleet is drawn for the whole trace, so that it is no other for another part.
    fleet = list(setting.fleet) if setting.fleet is not None else drawn_fleet(trace, setting.nodes, rng)
    check_holds(trace, fleet)
    fleet = with_speeds(fleet, setting.speed_spread, rng)
    speeds = np.array([node.speed for node in fleet], dtype=np.float64)
    capacity = np.array([node.capacity for node in fleet], dtype=np.int64)
    slowness = rng.lognormal(0.0, PAIR_SIGMA, (len(TASK_TYPES), len(fleet))) / speeds
    theta = np.array(CONTENTION_MOST) * rng.uniform(0.0, 1.0, 4)
    arrival, scarce = offered(part, capacity, speeds, setting.load)
    n = len(part)
    k = rng.uniform(*K_RANGE, n) if setting.k is None else np.full(n, setting.k)
    own = part.deadline_s if setting.k is None else np.full(n, np.nan)
    allowed = np.where(np.isnan(own), k * part.runtime_s, own)
    return Scenario(
        trace=part,
        arrival_s=arrival,
        deadline_s=arrival + allowed,
        fleet=tuple(fleet),
        capacity=capacity,
        slots=np.array([node.slots for node in fleet], dtype=np.int64),
        slowness=slowness,
        noise=rng.lognormal(0.0, NOISE_SIGMA, n),
        theta=theta,
        scarce=scarce,
        seed=seed,
    )


def offered(trace: Trace, capacity: IntColumn, speeds: FloatColumn, load: float) -> tuple[FloatColumn, int]:
    """Arrivals rescaled to an offered load, and the most demanded resource.

    For that resource, demand-seconds over (capacity x mean speed x span) equals `load`.
    """
    demanded = (trace.demand * trace.runtime_s[:, None]).sum(axis=0)
    total = capacity.sum(axis=0) * speeds.mean()
    busy_s = np.divide(demanded, total, out=np.zeros(4), where=total > 0)
    scarce = int(busy_s.argmax())
    span = trace.span_s
    if span <= 0:
        return np.zeros(len(trace)), scarce
    return trace.arrival_s * (busy_s[scarce] / load / span), scarce


def earlier_and_later(scenario: Scenario, share: float) -> tuple[Scenario, Scenario]:
    """The scenario cut in two by number of jobs; each begins at its own time 0."""
    cut = min(max(round(len(scenario) * share), 1), len(scenario) - 1)
    return scenario.part(0, cut), scenario.part(cut, len(scenario))


def _part(trace: Trace, jobs: int | None, seed: int) -> Trace:
    """Jobs in a row: for seed 0 the first ones, for others from a place of their own."""
    if jobs is None or jobs >= len(trace):
        return trace
    start = 0 if seed == 0 else int(np.random.default_rng((seed, 911)).integers(len(trace) - jobs + 1))
    return trace.part(start, jobs)

