"""RTS: the risk score, and the scheduler that takes the node of the lowest risk (spec section 5)."""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

import numpy as np

from cloudai.scheduling.errors import CannotDecide
from cloudai.scheduling.exploration import exploratory_row
from cloudai.scheduling.fallbacks import NO_PARAMETERS, NO_USABLE_TELEMETRY, NOT_FINITE
from cloudai.scheduling.formula import base_risk, contention, lateness, runtime_weights
from cloudai.scheduling.parameter_vectors import ParameterVectors, TypeVectors, type_vectors
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.requests import TaskRequest
from cloudai.scheduling.scheduler import Context, Ranking
from cloudai.scheduling.selection import lowest
from cloudai.scheduling.snapshot import BoolArray, FleetSnapshot, FloatArray


class RTSScores(NamedTuple):
    """The terms of the score for each node; float64 of shape (n,) each, named as in spec section 5."""

    #: predicted execution time, s
    E: FloatArray
    #: predicted lateness, s
    Delta: FloatArray
    #: base risk
    R: FloatArray
    #: final risk; the lowest wins
    Rfinal: FloatArray

    def F(self, now: float) -> FloatArray:
        """Predicted finish, epoch s, for a decision at `now`."""
        return now + self.E


def rts_scores(
    task: TaskRequest,
    snapshot: FleetSnapshot,
    parameters: GAParams,
    *,
    tau: float,
    slack_s: float,
    vectors: TypeVectors | None = None,
    feasible_only: bool = False,
) -> RTSScores:
    """Score a task on every node; `tau` in s, `slack_s` = deadline - now in s (spec section 5).

    The formula holds for nodes that cannot take the task too. With `feasible_only` the caller looks at
    feasible nodes alone and the others may hold anything, which saves the case of a denominator of 0.
    """
    p = parameters
    v = vectors if vectors is not None else type_vectors(task.task_type, p, snapshot)
    asked = task.resources
    # E = tau * b * s * (1 + theta1*cpu/cpu_avail + theta2*mem/mem_avail + theta3*gpu/gpu_avail + theta4*L)
    # as one product of the weights with the matrix of 1, 1/cpu_avail, 1/mem_avail, 1/gpu_avail and L.
    tau_b = tau * v.base
    E: FloatArray = (
        np.array(
            runtime_weights(
                tau_b, p.theta1, p.theta2, p.theta3, p.theta4, asked.cpu, asked.memory, asked.gpu
            )
        )
        @ snapshot.features
    )
    if not feasible_only:
        E += tau_b * _exhausted(task, snapshot, p)
    if v.speed is not None:
        E *= v.speed
    # slack_s = deadline - t, so Delta = max(0, F - deadline) = max(0, E - slack_s).
    if feasible_only and _longest(task, snapshot, p, v, tau) <= slack_s:
        Delta = np.zeros(E.size)
        R = base_risk(0.0, 0.0, p.beta, snapshot.load)
    else:
        Delta = lateness(E, slack_s)
        R = base_risk(p.alpha, Delta, p.beta, snapshot.load)
    Rfinal = R if v.offset is None else R + v.offset
    return RTSScores(E=E, Delta=Delta, R=R, Rfinal=Rfinal)


def _longest(task: TaskRequest, snapshot: FleetSnapshot, p: GAParams, v: TypeVectors, tau: float) -> float:
    """Upper bound of E over the feasible nodes, s: no ratio is above 1 there. Mostly no node is late."""
    if not len(snapshot):
        return 0.0
    # argmax takes a third of the time of max, and finds a NaN too.
    L = snapshot.load.item(snapshot.load.argmax())
    gpu = p.theta3 if task.resources.gpu_milli else 0.0
    # A millionth more, for the rounding of E.
    return 1.000001 * tau * v.base * v.slowest * float(contention(p.theta1, p.theta2, gpu, p.theta4, 1, 1, 1, L))


def _exhausted(task: TaskRequest, snapshot: FleetSnapshot, p: GAParams) -> FloatArray:
    """What the matrix lacks: it has 0 for 1/0, but of nothing available, something asked is a ratio of 1."""
    asked = task.resources
    terms = np.zeros(len(snapshot))
    for theta, need, available in (
        (p.theta1, asked.cpu, snapshot.cpu),
        (p.theta2, asked.memory, snapshot.memory),
        (p.theta3, asked.gpu, snapshot.gpu),
    ):
        if need:
            terms[available <= 0] += theta
    return terms


def placement_features(
    task: TaskRequest, snapshot: FleetSnapshot, row: int
) -> tuple[float, float, float, float]:
    """[cpu ratio, memory ratio, gpu ratio, load] of a task on one node, as the history keeps them (spec
    section 7).
    """
    asked = task.resources
    state = snapshot.states[row]
    return (
        _ratio(asked.cpu_milli, state.cpu_available),
        _ratio(asked.memory_kib, state.memory_available),
        _ratio(asked.gpu_milli, state.gpu_available) if asked.gpu_milli else 0.0,
        float(snapshot.load[row]),
    )


def predicted_runtime(
    features: tuple[float, float, float, float], parameters: GAParams, task_type: str, node: str, tau: float
) -> float:
    """E of one task on one node from the four features of its placement, s (spec section 5)."""
    p = parameters
    b, s = p.base.get(task_type, 1.0), p.speed.get(task_type, {}).get(node, 1.0)
    cpu, memory, gpu, L = features
    return tau * b * s * float(contention(p.theta1, p.theta2, p.theta3, p.theta4, cpu, memory, gpu, L))


def _ratio(asked: int, available: int) -> float:
    if available > 0:
        return asked / available
    return 1.0 if asked else 0.0


class RTS:
    """The feasible node with the lowest final risk; ties go to the lower predicted runtime, then the lower
    name.
    """

    name = "rts"

    def __init__(self) -> None:
        self._vectors = ParameterVectors()

    def rank(self, task: TaskRequest, context: Context, feasible: BoolArray, count: int) -> Ranking:
        """As Scheduler.rank. A node whose pressure is not known is left out while another is known."""
        parameters, snapshot = context.parameters, context.snapshot
        if parameters is None:
            raise CannotDecide(NO_PARAMETERS)
        if not isfinite(context.tau):
            raise CannotDecide(NOT_FINITE)
        vectors = self._vectors.of(task.task_type, parameters, snapshot)
        scores = rts_scores(
            task,
            snapshot,
            parameters,
            tau=context.tau,
            slack_s=context.slack_s,
            vectors=vectors,
            feasible_only=True,
        )
        rows = lowest(scores.Rfinal, scores.E, feasible, count)
        if not rows:
            known = np.isfinite(snapshot.load) & feasible
            raise CannotDecide(NOT_FINITE if known.any() else NO_USABLE_TELEMETRY)
        tried = None
        if context.explore is not None:
            speed = parameters.speed.get(task.task_type, {})
            usable = feasible & np.isfinite(scores.Rfinal)
            tried = exploratory_row(context.explore, speed, snapshot, usable, scores.E, context.slack_s)
            if tried is not None:
                rows = [tried, *(row for row in rows if row != tried)][:count]
        return Ranking(
            rows=rows,
            scores=[scores.Rfinal.item(row) for row in rows],
            runtimes=[scores.E.item(row) for row in rows],
            terms={
                "lateness": [scores.Delta.item(row) for row in rows],
                "affinity": _at(vectors.affinity, rows),
                "penalty": _at(vectors.penalty, rows),
            },
            exploratory=tried is not None,
        )


def _at(values: FloatArray | None, rows: list[int]) -> list[float]:
    return [0.0] * len(rows) if values is None else [values.item(row) for row in rows]
