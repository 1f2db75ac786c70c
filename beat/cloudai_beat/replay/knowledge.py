"""What a scheduler learns from completions, compiled: tau by type and family, speeds of pairs, affinity, penalty.

The same for every policy: all start with the same knowledge and see the same kind of completions.
"""

from __future__ import annotations

from math import exp, log

from .compiled import compiled
from .formulas import affinity_score, after_sample, foretells, placement_offset
from .world import Records, World

#: Variance of log speed that is expected over nodes, and over the pairs of one node: what shrinkage weighs against.
_NODE_VARIANCE = 0.16
_PAIR_VARIANCE = 0.0625
#: A sample further from its type's centre than this is cut (log units).
_FURTHEST = 3.0
#: Runs of a type before its samples say anything of speeds: the first ones are spoiled by the starting tau.
_SETTLING = 5


@compiled
def tau_of(i: int, S: World) -> float:
    """Expected runtime of task i on a reference node, s: its family's tau, else its type's, or what its window
    foretells better; at most the user's own limit.
    """
    task = S.tasks[i]
    family, c = task.family, task.kind
    tau, variance = S.types[c].tau, S.types[c].variance
    if family >= 0 and S.families[family, c].samples >= S.state[0].family_after:
        tau, variance = S.families[family, c].tau, S.families[family, c].variance
    window, share = task.deadline - task.arrival, S.shares[c]
    if window > 0 and foretells(share.tau, share.variance, share.samples, tau, variance):
        tau = share.tau * window
    return float(min(tau, task.limit))


@compiled
def _take_in(known: Records, sample: float, rate: float, from_first: bool, S: World) -> None:
    state = S.state[0]
    known.tau, known.variance, known.samples, known.run = after_sample(
        known.tau, known.variance, known.samples, known.run, sample, rate, state.outlier_sigma, state.outlier_after,
        state.follow_after, state.adaptive > 0, from_first,
    )  # fmt: skip


@compiled
def learn(i: int, j: int, runtime: float, missed: bool, S: World) -> None:
    """Take in the completion of task i on node j after `runtime` seconds of work, as state/lua/finish.lua does."""
    task = S.tasks[i]
    c, family, window = task.kind, task.family, task.deadline - task.arrival
    expected = tau_of(i, S)
    sample, rate = runtime / S.speed[c, j], S.kinds[c].rate
    _take_in(S.types[c], sample, rate, False, S)
    if window > 0:
        _take_in(S.shares[c], sample / window, rate, True, S)
    if family >= 0:
        _take_in(S.families[family, c], sample, rate, True, S)
    if S.state[0].learn_speed > 0 and S.types[c].samples > _SETTLING:
        _learn_speed(c, j, log(runtime / expected), missed, S)


@compiled
def _learn_speed(c: int, j: int, q: float, missed: bool, S: World) -> None:
    kind, pair = S.kinds[c], S.pairs[c, j]
    # What is learned is how far off the given speed is.
    q -= log(pair.prior)
    if kind.count > 0:
        q = min(max(q, kind.centre - _FURTHEST), kind.centre + _FURTHEST)
    pair.count += 1
    pair.sum += q
    pair.missed += missed
    kind.count += 1
    kind.sum += q
    kind.square += q * q
    kind.missed += missed
    kind.centre = kind.sum / kind.count
    kind.spread = max(kind.square / kind.count - kind.centre * kind.centre, 0.01)
    kind.usual = kind.missed / kind.count
    runs, total = 0.0, 0.0
    for other in range(len(S.kinds)):
        runs += S.pairs[other, j].count
        total += S.pairs[other, j].sum - S.pairs[other, j].count * S.kinds[other].centre
    # What one completion says of the other types of the node fades with their number: they follow now and then.
    if pair.count < 16 or pair.count % 8 == 0:
        for other in range(len(S.kinds)):
            if S.kinds[other].count > 0:
                _estimate(other, j, runs, total, S)
    else:
        _estimate(c, j, runs, total, S)


@compiled
def _estimate(c: int, j: int, runs: float, total: float, S: World) -> None:
    """Speed of one pair: the mean of its samples, shrunk towards its node's mean, and that towards the given speed.

    `runs`, `total`: of all samples of the node, their number, and the sum of how far each is above its type's mean.
    """
    kind, pair, gene = S.kinds[c], S.pairs[c, j], S.genes[0]
    of_node = total / (runs + kind.spread / _NODE_VARIANCE)
    weight = kind.spread / _PAIR_VARIANCE
    own = pair.sum - pair.count * kind.centre
    speed = pair.prior * exp((own + weight * of_node) / (pair.count + weight))
    S.speed[c, j] = speed
    rate = (pair.missed + 5.0 * kind.usual) / (pair.count + 5.0)
    pair.affinity = affinity_score(gene.a1, gene.a2, gene.a3, 1.0 / speed, 1.0 - rate, 0.0)
    S.offset[c, j] = placement_offset(pair.affinity, S.nodes[j].penalty)
