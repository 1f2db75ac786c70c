"""What a scheduler learns from completions, compiled: tau by type and family, speeds of pairs, affinity, penalty.

The same for every policy: all start with the same knowledge and see the same kind of completions.
"""

from __future__ import annotations

from math import exp, log

from .compiled import compiled
from .formulas import affinity_score, foretells, learned_tau, learned_variance, placement_offset
from .world import World

#: Samples of a family from which its own tau is used.
FAMILY_LEAST = 3
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
    family, c = S.tasks[i].family, S.tasks[i].kind
    tau, variance = S.kinds[c].tau, S.kinds[c].variance
    if family >= 0 and S.families[family].count >= FAMILY_LEAST:
        tau, variance = S.families[family].tau, S.families[family].variance
    window = S.tasks[i].deadline - S.tasks[i].arrival
    if window > 0 and foretells(S.kinds[c].share, S.kinds[c].share_variance, S.kinds[c].share_count, tau, variance):
        tau = S.kinds[c].share * window
    return float(min(tau, S.tasks[i].limit))


@compiled
def best_speed(c: int, S: World) -> float:
    """The lowest speed factor of a type."""
    best = S.kinds[c].best_speed
    if best == 0.0:
        best = S.speed[c, 0]
        for j in range(1, len(S.nodes)):
            best = min(best, S.speed[c, j])
        S.kinds[c].best_speed = best
    return float(best)


@compiled
def learn(i: int, j: int, runtime: float, missed: bool, S: World) -> None:
    """Take in the completion of task i on node j after `runtime` seconds of work."""
    c = S.tasks[i].kind
    window = S.tasks[i].deadline - S.tasks[i].arrival
    expected = tau_of(i, S)
    sample = runtime / S.speed[c, j]
    rate = S.state[0].learning_rate
    S.kinds[c].variance = learned_variance(rate, sample, S.kinds[c].tau, S.kinds[c].variance)
    S.kinds[c].tau = learned_tau(rate, sample, S.kinds[c].tau)
    if window > 0:
        share, share_rate = sample / window, max(rate, 1.0 / (S.kinds[c].share_count + 1))
        S.kinds[c].share_variance = learned_variance(share_rate, share, S.kinds[c].share, S.kinds[c].share_variance)
        S.kinds[c].share = learned_tau(share_rate, share, S.kinds[c].share)
        S.kinds[c].share_count += 1
    S.kinds[c].tau_count += 1
    family = S.tasks[i].family
    if family >= 0:
        count = S.families[family].count
        if count == 0:
            S.families[family].tau = sample
        else:
            rate = max(rate, 1.0 / (count + 1))
            S.families[family].variance = learned_variance(
                rate, sample, S.families[family].tau, S.families[family].variance
            )
            S.families[family].tau = learned_tau(rate, sample, S.families[family].tau)
        S.families[family].count = count + 1
    if S.state[0].learn_speed:
        _learn_speed(c, j, log(runtime / expected), missed, S)


@compiled
def _learn_speed(c: int, j: int, q: float, missed: bool, S: World) -> None:
    if S.kinds[c].tau_count <= _SETTLING:
        return
    # What is learned is how far off the given speed is.
    q -= log(S.pairs[c, j].prior)
    if S.kinds[c].count > 0:
        centre = S.kinds[c].sum / S.kinds[c].count
        q = min(max(q, centre - _FURTHEST), centre + _FURTHEST)
    S.pairs[c, j].count += 1
    S.pairs[c, j].sum += q
    S.kinds[c].count += 1
    S.kinds[c].sum += q
    S.kinds[c].square += q * q
    S.pairs[c, j].missed += missed
    S.kinds[c].missed += missed
    visits = S.pairs[c, j].count
    # What one completion says of the other types of the node fades with their number: they follow now and then.
    if visits < 16 or S.pairs[c, j].count % 8 == 0:
        for kind in range(len(S.kinds)):
            if S.kinds[kind].count > 0:
                _estimate(kind, j, S)
    else:
        _estimate(c, j, S)


@compiled
def _estimate(c: int, j: int, S: World) -> None:
    """Speed of one pair: the mean of its samples, shrunk towards its node's mean, and that towards the given speed."""
    runs, total = 0.0, 0.0
    for kind in range(len(S.kinds)):
        if S.kinds[kind].count > 0:
            centre = S.kinds[kind].sum / S.kinds[kind].count
            runs += S.pairs[kind, j].count
            total += S.pairs[kind, j].sum - S.pairs[kind, j].count * centre
    count = S.kinds[c].count
    centre = S.kinds[c].sum / count
    variance = max(S.kinds[c].square / count - centre * centre, 0.01)
    of_node = total / (runs + variance / _NODE_VARIANCE)
    weight = variance / _PAIR_VARIANCE
    own = S.pairs[c, j].sum - S.pairs[c, j].count * centre
    speed = S.pairs[c, j].prior * exp((own + weight * of_node) / (S.pairs[c, j].count + weight))
    if S.speed[c, j] <= S.kinds[c].best_speed or speed < S.kinds[c].best_speed:
        S.kinds[c].best_speed = 0.0
    S.speed[c, j] = speed
    usual = S.kinds[c].missed / count
    rate = (S.pairs[c, j].missed + 5.0 * usual) / (S.pairs[c, j].count + 5.0)
    S.pairs[c, j].affinity = affinity_score(S.genes[0].a1, S.genes[0].a2, S.genes[0].a3, 1.0 / speed, 1.0 - rate, 0.0)
    S.offset[c, j] = placement_offset(S.pairs[c, j].affinity, S.nodes[j].penalty)
