"""A process that decides over a fleet in memory and times it: no Redis, no Celery."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from cloudai.bench.conversation import serve
from cloudai.bench.fleet import states
from cloudai.scheduling.parameter_vectors import ParameterVectors
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.pipeline import MOST_CANDIDATES, Placer
from cloudai.scheduling.policies import SchedulerPolicy
from cloudai.scheduling.requests import RequestDefaults, parse_request
from cloudai.scheduling.reservation import with_reservation
from cloudai.scheduling.rts import RTS, rts_scores
from cloudai.scheduling.scheduler import Context
from cloudai.scheduling.snapshot import FleetSnapshot
from cloudai.scheduling.task_types import TASK_TYPES

_SEED = 7
_NOW = 1_700_000_000.0
_TAU_S = 10.0
#: Close enough that some nodes would be late: then every term of the score has to be computed.
_SLACK_S = 11.0


def _learned(names: list[str]) -> GAParams:
    """Parameters as an epoch leaves them: affinity, speed and penalty of every node."""
    chance = random.Random(_SEED)
    return GAParams(
        affinity={str(t): {name: chance.uniform(-1, 1) for name in names} for t in TASK_TYPES},
        speed={str(t): {name: chance.uniform(0.5, 2) for name in names} for t in TASK_TYPES},
        penalty={name: chance.uniform(0, 1) for name in names},
        version=1,
    )


def score(nodes: int, calls: int) -> dict[str, float]:
    """Median microseconds of the formula, of it with the choice of the best five, and of a whole decision."""
    snapshot = FleetSnapshot(states(nodes, _NOW))
    parameters = _learned(snapshot.names)
    request = parse_request({"cpu": 2, "memory": 2}, now=_NOW, defaults=RequestDefaults(cpu=1, memory=1))
    context = Context(snapshot=snapshot, parameters=parameters, tau=_TAU_S, slack_s=_SLACK_S, now=_NOW)
    everyone = np.ones(nodes, dtype=np.bool_)
    rts, kept = RTS(), ParameterVectors()
    placer = Placer(SchedulerPolicy(RTS()))

    def formula() -> None:
        vectors = kept.of(request.task_type, parameters, snapshot)
        rts_scores(
            request, snapshot, parameters, tau=_TAU_S, slack_s=_SLACK_S, vectors=vectors, feasible_only=True
        ).Rfinal.argmin()

    def reserve_and_decide() -> float:
        # As while submitting: the node that got the last task has changed.
        chosen = placer.decide("task", request, context).candidates[0]
        snapshot.apply([with_reservation(snapshot.states[snapshot.index[chosen]], request.resources)])
        return _seconds(lambda: placer.decide("task", request, context))

    return {
        "formula": _microseconds(calls, lambda: _seconds(formula)),
        "rank": _microseconds(calls, lambda: _seconds(lambda: rts.rank(request, context, everyone, MOST_CANDIDATES))),
        "decide": _microseconds(calls, reserve_and_decide),
    }


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _microseconds(calls: int, timed: Callable[[], float]) -> float:
    for _ in range(calls // 10):
        timed()
    return median(timed() for _ in range(calls)) * 1e6


if __name__ == "__main__":
    serve({"score": score})
