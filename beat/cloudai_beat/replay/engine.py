"""`replay`: one policy over one workload, fleet and environment."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cloudai.scheduling.dispatch_order import AGED_AFTER_S, AGED_SHARE, STARVING_AFTER_S
from cloudai.scheduling.learning import LearningRule
from cloudai.scheduling.task_types import INITIAL_TAU, TASK_TYPES
from cloudai.scheduling.units import KIB_PER_GIB, MILLI

from .loop import run
from .parameters import ReplayParameters
from .policies import POLICIES
from .workload import Bools, Environment, Fleet, Floats, Ints, InvalidReplay, Workload
from .world import World, world


@dataclass(frozen=True)
class Options:
    """How a replay runs."""

    #: one of POLICIES
    policy: str = "rts"
    #: tau by type at the start, s; None: the starting values of spec section 2
    tau: Floats | None = None
    #: learn tau from completions
    learn_tau: bool = True
    #: learn speeds and affinities of pairs from completions, from those given on
    learn_speed: bool = True
    #: how tau follows completions, as in the live system
    rule: LearningRule = field(default_factory=LearningRule)
    #: samples of a family from which its own tau is used
    family_after: int = 3
    aged_after_s: float = AGED_AFTER_S
    aged_share: int = AGED_SHARE
    starving_after_s: float = STARVING_AFTER_S
    #: of policies that choose by chance
    seed: int = 0

    @property
    def first_tau(self) -> Floats:
        """Tau by type at the start, s; shape (6,)."""
        return np.array([INITIAL_TAU[kind] for kind in TASK_TYPES]) if self.tau is None else self.tau


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of each task, shape (m,), and of each node, shape (n,)."""

    #: s; NaN: it never started
    start: Floats
    #: s; inf: it never ended
    finish: Floats
    #: row of the fleet; -1: none
    node: Ints
    #: after its deadline, or never
    missed: Bools
    #: load L of the node just before
    load_at_start: Floats
    #: runtime that was expected when it started, s
    predicted: Floats
    #: (4, n) core-seconds, GiB-seconds, GPU-seconds, GiB-seconds of disk, reserved
    used: Floats
    #: (4, n) the same, of a node that is fully reserved all the time; 0: it has none of it
    total: Floats
    #: (n,) energy (spec section 7)
    energy: Floats
    #: (n,) integral of max(0, load - 1), s
    overload: Floats
    #: from the first arrival to the last end, s
    span: float
    #: placements that were decided
    decisions: int
    #: what was known in the end: tau by type (6,), speed (6, n), affinity (6, n)
    tau: Floats = field(repr=False)
    speed: Floats = field(repr=False)
    affinity: Floats = field(repr=False)

    @property
    def miss_rate(self) -> float:
        """Share of tasks that missed their deadline, 0..1."""
        return float(self.missed.mean()) if len(self.missed) else 0.0

    @property
    def utilisation(self) -> float:
        """Mean over nodes, and over the resources that a node has, of used over total (spec section 7)."""
        has = self.total > 0
        return float((self.used[has] / self.total[has]).mean()) if has.any() else 0.0


def replay(
    workload: Workload,
    fleet: Fleet,
    environment: Environment,
    parameters: ReplayParameters,
    options: Options = Options(),
) -> Outcome:
    """Replay the workload; the same arguments give the same outcome. The GIL is released meanwhile.

    InvalidReplay where the arguments do not belong together.
    """
    policy = POLICIES.get(options.policy)
    if policy is None:
        raise InvalidReplay(f"policy: {options.policy!r} was given; allowed: {', '.join(POLICIES)}")
    _check(workload, fleet, environment, parameters)
    S = world(workload, fleet, environment, parameters, options)
    last = run(policy, S)
    return _outcome(workload, fleet, environment, last, S)


def _outcome(workload: Workload, fleet: Fleet, environment: Environment, last: float, S: World) -> Outcome:
    w, tasks = workload, S.tasks
    ran = tasks["node"] >= 0
    rows = tasks["node"][ran]
    seconds = (tasks["finish"] - tasks["start"])[ran]
    amounts = (w.cpu_milli / MILLI, w.memory_kib / KIB_PER_GIB, w.gpu_milli / MILLI, w.storage_kib / KIB_PER_GIB)

    def by_node(amount: Floats) -> Floats:
        return np.bincount(rows, amount[ran] * seconds, len(fleet)).astype(np.float64)

    used = np.stack([by_node(amount) for amount in amounts])
    cores = by_node(amounts[0] * environment.cpu_use[w.task_type])
    ea, eb, ec = environment.energy
    span = max(last - float(w.arrival[0]), 0.0) if len(w) else 0.0
    f = fleet
    capacity = np.stack([f.cpu_milli / MILLI, f.memory_kib / KIB_PER_GIB, f.gpus / 1, f.storage_kib / KIB_PER_GIB])
    return Outcome(
        start=tasks["start"].copy(), finish=tasks["finish"].copy(), node=tasks["node"].copy(),
        missed=~(tasks["finish"] <= w.deadline), load_at_start=tasks["load_at_start"].copy(),
        predicted=tasks["predicted"].copy(), used=used, total=capacity * span,
        energy=ea * cores + eb * used[1] + ec * used[2], overload=S.nodes["overload"].copy(), span=span,
        decisions=int(S.state["decisions"][0]), tau=S.types["tau"].copy(), speed=S.speed.copy(),
        affinity=S.pairs["affinity"].copy(),
    )  # fmt: skip


def _check(workload: Workload, fleet: Fleet, environment: Environment, parameters: ReplayParameters) -> None:
    if environment.factor.shape != (6, len(fleet)) or environment.noise.shape != (len(workload),):
        raise InvalidReplay("environment: factor needs 6 rows and a column a node, noise a number a task")
    if parameters.speed.shape != (6, len(fleet)):
        raise InvalidReplay("parameters: they were spread over another fleet")
    if workload.constraint.max(initial=0) >= len(fleet.allowed):
        raise InvalidReplay("constraint: it names a row that the fleet's `allowed` does not have")
