"""The replay's tau is that of scheduling/learning.py, sample by sample: outliers, shifts, families, windows, limits."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from cloudai.scheduling.learning import Learned, LearningRule, expected_runtime, first, learn
from cloudai.scheduling.parameters import GAParams
from cloudai.scheduling.task_types import INITIAL_TAU, TASK_TYPES
from cloudai_beat.replay import Environment, Fleet, Options, ReplayParameters, Workload, replay

#: The first replay of a machine compiles the engine.
pytestmark = pytest.mark.timeout(600)

COUNT = 2000


def one_after_the_other(seed: int) -> Workload:
    """Jobs that each end before the next arrives. Runtimes are alike but for outliers; from the middle on they last
    longer. Some have a family, some a limit; deadlines foretell the runtimes of one type in two.
    """
    chance = np.random.default_rng(seed)
    kind = chance.integers(0, 6, COUNT)
    runtime = (3.0 + kind) * chance.lognormal(0, 0.1, COUNT)
    runtime[COUNT // 2 :] *= 3
    runtime *= np.where(chance.random(COUNT) < 0.05, chance.choice([0.05, 40.0], COUNT), 1.0)
    arrival = 10_000.0 * np.arange(COUNT)
    window = np.where(kind % 2, 2.0 * runtime, chance.uniform(1, 500, COUNT))
    return Workload.of(
        arrival, runtime, arrival + window, kind, cpu_milli=np.full(COUNT, 1000),
        family=chance.integers(-1, 4, COUNT), limit=np.where(chance.random(COUNT) < 0.1, 2.0, inf),
    )  # fmt: skip


@pytest.mark.parametrize(
    "rule",
    [
        LearningRule(),
        LearningRule(rate=0.3, rate_by_type={"cpu-light": 0.05}, adaptive=True, outlier_sigma=2.0, follow_after=3),
    ],
)
def test_the_replay_learns_tau_as_the_live_rule_does_sample_by_sample(rule: LearningRule) -> None:
    workload, fleet = one_after_the_other(3), Fleet.of(np.full(1, 4000))
    # Without contention, base and speed, the predicted runtime is tau.
    parameters = ReplayParameters.of(GAParams(theta1=0, theta2=0, theta3=0, theta4=0), fleet)
    outcome = replay(
        workload, fleet, Environment.plain(workload, fleet), parameters, Options(learn_speed=False, rule=rule)
    )
    types = {kind: Learned(INITIAL_TAU[name]) for kind, name in enumerate(TASK_TYPES)}
    shares: dict[int, Learned] = {}
    families: dict[tuple[int, int], Learned] = {}
    foretold = 0
    for i in range(COUNT):
        kind, family = int(workload.task_type[i]), int(workload.family[i])
        window = float(workload.deadline[i] - workload.arrival[i])
        known = families.get((family, kind))
        if known is None or known.samples < 3:
            known = types[kind]
        tau = expected_runtime(known, shares.get(kind), window)
        foretold += tau != known.tau
        assert outcome.predicted[i] == min(tau, workload.limit[i]), i
        sample, rate = float(outcome.finish[i] - outcome.start[i]), rule.rate_of(TASK_TYPES[kind])
        types[kind] = learn(types[kind], sample, rule, rate)
        shares[kind] = learn(shares.get(kind, Learned(sample / window)), sample / window, rule, rate, from_first=True)
        if family >= 0:
            of_family = families.get((family, kind))
            families[family, kind] = (
                first(sample) if of_family is None else learn(of_family, sample, rule, rate, from_first=True)
            )
    assert outcome.tau.tolist() == [types[kind].tau for kind in range(6)]
    # There was all that the rule tells apart.
    assert sum(known.rejected for known in types.values()) > COUNT // 50
    assert 0 < foretold < COUNT
