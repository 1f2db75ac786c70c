"""The live system's way, compiled: place what fits at once, else one waiting set served in dispatch order."""

from __future__ import annotations

from math import floor, inf

import numpy as np

from cloudai.scheduling.units import KIB_PER_GIB, MILLI

from .compiled import compiled
from .formulas import (
    SAME,
    base_risk,
    can_make_it,
    lateness,
    runtime_weights,
    urgency,
)
from .knowledge import best_speed, tau_of
from .node_state import could_hold, fits
from .policies import CLAIRVOYANT
from .running import start, true_runtime
from .waiting_set import first_from, next_bit, oldest, park, unpark
from .world import World


@compiled
def _weights(i: int, S: World) -> tuple[float, float, float, float, float]:
    task, gene = S.tasks[i], S.genes[0]
    tau_b = tau_of(i, S) * S.kinds[task.kind].base
    return runtime_weights(
        tau_b, gene.theta1, gene.theta2, gene.theta3, gene.theta4, task.cpu / MILLI, task.memory / KIB_PER_GIB,
        task.gpu / MILLI,
    )  # fmt: skip


@compiled
def _predicted(j: int, weights: tuple[float, float, float, float, float], S: World) -> float:
    """E on node j without the pair's speed, s."""
    node = S.nodes[j]
    w0, w1, w2, w3, w4 = weights
    return float(w0 + w1 * node.inv_cpu + w2 * node.inv_memory + w3 * node.inv_gpu + w4 * node.load)


@compiled
def best_node(policy: int, i: int, now: float, S: World) -> int:
    """The node of the lowest final risk among those that can take task i now, -1: none. nodes.E has the predictions.

    As RTS.rank: ties go to the lower E, compared to 7 digits, then to the first row.
    """
    c = S.tasks[i].kind
    count = len(S.nodes)
    weights = _weights(i, S)
    slack = S.tasks[i].deadline - now
    alpha, beta = S.genes[0].alpha, S.genes[0].beta
    best, lowest = -1, inf
    for j in range(count):
        S.nodes[j].score = inf
        if not fits(i, j, S) or (S.nodes[j].held_for >= 0 and S.nodes[j].held_for != i):
            continue
        E = true_runtime(i, j, S) if policy == CLAIRVOYANT else _predicted(j, weights, S) * S.pairs[c, j].speed
        S.nodes[j].E = E
        score = base_risk(alpha, lateness(E, slack), beta, S.nodes[j].load) + S.pairs[c, j].offset
        if policy == CLAIRVOYANT:
            score = E
        S.nodes[j].score = score
        if score < lowest:
            best, lowest = j, score
    if best < 0:
        return best
    bound = lowest + SAME * (1.0 + abs(lowest))
    for j in range(count):
        if S.nodes[j].score <= bound and np.float32(S.nodes[j].E) < np.float32(S.nodes[best].E):
            best = j
    for j in range(best):
        if S.nodes[j].score <= bound and np.float32(S.nodes[j].E) == np.float32(S.nodes[best].E):
            return j
    return best


@compiled
def hopes_for(policy: int, i: int, S: World) -> float:
    """Runtime of task i on the fastest node when it is idle, s."""
    c = S.tasks[i].kind
    if policy == CLAIRVOYANT:
        best = inf
        for j in range(len(S.nodes)):
            if could_hold(i, j, S):
                best = min(best, S.pairs[c, j].factor)
        return float(S.tasks[i].runtime * best * S.tasks[i].noise)
    return float(tau_of(i, S) * S.kinds[c].base * best_speed(c, S))


@compiled
def arrive(policy: int, i: int, now: float, S: World) -> None:
    """Task i arrives: it is placed if a node can take it, else it waits."""
    j = best_node(policy, i, now, S)
    if j >= 0 and S.state[0].order_patience > 0 and _waits_for_better(policy, i, now, S.nodes[j].E, S):
        j = -1
    if j >= 0:
        start(i, j, now, S.nodes[j].E, S)
    else:
        park(i, S)


@compiled
def _waits_for_better(policy: int, i: int, now: float, E: float, S: World) -> bool:
    if can_make_it(now, E, S.tasks[i].deadline, S.genes[0].order_margin):
        return False
    return can_make_it(now, hopes_for(policy, i, S), S.tasks[i].deadline, S.state[0].order_patience)


@compiled
def dispatch(policy: int, now: float, S: World) -> None:
    """Place waiting tasks on the nodes that have new room, in dispatch order, until nothing fits."""
    if S.state[0].order_patience > 0:
        S.state[0].dirty = 0
        for j in range(len(S.nodes)):
            if S.nodes[j].slots > 0 and S.nodes[j].cpu >= S.state[0].least_cpu:
                S.dirty[S.state[0].dirty] = j
                S.state[0].dirty += 1
    S.state[0].dispatches += 1
    turn = floor(now)
    share = int(S.state[0].aged_share)
    placed = False
    while S.state[0].waiting > 0:
        i = _kept_for(S)
        if i < 0 and turn % share == 0:
            i = _aged(policy, now, S.state[0].aged_after, S)
        if i < 0:
            i = _most_urgent(policy, now, S)
        if i < 0:
            break
        turn += 1
        j = best_node(policy, i, now, S)
        if j < 0:
            S.shapes[S.tasks[i].shape].blocked = S.state[0].dispatches
            continue
        unpark(i, S)
        kept = S.tasks[i].hold
        if kept >= 0:
            S.tasks[i].hold = -1
            S.nodes[kept].held_for = -1
            if kept != j:
                S.dirty[S.state[0].dirty] = kept
                S.state[0].dirty += 1
        start(i, j, now, S.nodes[j].E, S)
        placed = True
    S.state[0].dirty = 0
    if not placed and S.state[0].waiting > 0:
        _keep_node_for_starving(now, S.state[0].starving_after, S)


@compiled
def _open_to_all(i: int, S: World) -> bool:
    """Whether a node with new room can take task i, holds left aside."""
    for at in range(S.state[0].dirty):
        j = S.dirty[at]
        if S.nodes[j].held_for < 0 and fits(i, j, S):
            return True
    return False


@compiled
def _kept_for(S: World) -> int:
    """A task that a node with new room is kept for, and that fits there now; -1: none."""
    for at in range(S.state[0].dirty):
        i = S.nodes[S.dirty[at]].held_for
        if i >= 0 and fits(i, S.dirty[at], S):
            return int(i)
    return -1


@compiled
def _free_runtime(i: int, S: World) -> float:
    """Predicted runtime of task i on the best of the nodes with new room, s; inf: it fits on none."""
    best = inf
    c = S.tasks[i].kind
    weights = _weights(i, S)
    for at in range(S.state[0].dirty):
        j = S.dirty[at]
        if S.nodes[j].held_for < 0 and fits(i, j, S):
            E = _predicted(j, weights, S) * S.pairs[c, j].speed
            best = min(best, E)
    return best


@compiled
def _most_urgent(policy: int, now: float, S: World) -> int:
    """The waiting task that goes first of those that fit on the nodes with new room; -1: none (dispatch_order)."""
    dispatch_count = S.state[0].dispatches
    best, best_key, best_late = -1, inf, True
    margin, patience = S.genes[0].order_margin, S.state[0].order_patience
    for at in range(S.state[0].listed):
        s = S.listed[at]
        if S.shapes[s].blocked == dispatch_count:
            continue
        if not _open_to_all(S.shapes[s].example, S):
            S.shapes[s].blocked = dispatch_count
            continue
        lowest = S.shapes[s].lowest
        if policy == CLAIRVOYANT:
            # It knows every task's own runtime, so each is looked at.
            place = lowest
            while place >= 0:
                i = S.places[place].task
                hope, runtime = _runtimes(policy, i, S)
                late = not can_make_it(now, runtime, S.tasks[i].deadline, margin)
                waits = late and patience > 0 and can_make_it(now, hope, S.tasks[i].deadline, patience)
                if not waits and (best_late or not late):
                    key = _key(i, now, runtime, late, S)
                    if best < 0 or (best_late and not late) or key < best_key or (key == best_key and i < best):
                        best, best_key, best_late = i, key, late
                place = next_bit(S.bits, place + 1, S.shapes[s].highest)
            continue
        # Tasks of a shape have one predicted runtime, so they go by deadline: first of those that can make it, if any
        # can, else of all.
        hope, runtime = _runtimes(policy, S.shapes[s].example, S)
        i = first_from(S, s, now + margin * runtime)
        late = i < 0
        if late:
            i = S.places[lowest].task
            if not best_late or (patience > 0 and can_make_it(now, hope, S.tasks[i].deadline, patience)):
                continue
        key = _key(i, now, runtime, late, S)
        if best < 0 or (best_late and not late) or key < best_key or (key == best_key and i < best):
            best, best_key, best_late = i, key, late
    return best


@compiled
def _key(i: int, now: float, runtime: float, late: bool, S: World) -> float:
    """Urgency of a waiting task; the lower goes first."""
    deadline = S.tasks[i].deadline
    late_s = max(now + runtime - deadline, 0.0) if late else 0.0
    return urgency(deadline, runtime, late_s, S.genes[0].order_runtime, S.genes[0].order_lateness)


@compiled
def _runtimes(policy: int, i: int, S: World) -> tuple[float, float]:
    """What task i can hope for, and the runtime by which it is ordered, s."""
    hope = hopes_for(policy, i, S)
    of_free, patience = S.state[0].order_free, S.state[0].order_patience
    if of_free == 0 and patience == 0:
        return hope, hope
    free = inf
    if policy == CLAIRVOYANT:
        for k in range(S.state[0].dirty):
            j = S.dirty[k]
            if S.nodes[j].held_for < 0 and fits(i, j, S):
                free = min(free, true_runtime(i, j, S))
    else:
        free = _free_runtime(i, S)
    return hope, hope + of_free * (free - hope)


@compiled
def _aged(policy: int, now: float, after: float, S: World) -> int:
    """The late task that has waited longest, at least `after` seconds, and fits; -1: none."""
    i = oldest(S)
    while i >= 0 and now - S.tasks[i].arrival >= after:
        s = S.tasks[i].shape
        if S.shapes[s].blocked != S.state[0].dispatches and _open_to_all(i, S):
            hope = hopes_for(policy, i, S)
            if not can_make_it(now, hope, S.tasks[i].deadline, S.genes[0].order_margin):
                return i
        i = next_bit(S.age_bits, i + 1, len(S.tasks) - 1)
    return -1


@compiled
def _keep_node_for_starving(now: float, after: float, S: World) -> None:
    """Keep a node for the task that has waited longest without one, once it has waited `after` seconds."""
    i = oldest(S)
    while i >= 0 and now - S.tasks[i].arrival >= after:
        if S.tasks[i].hold < 0:
            j = _node_to_keep(i, S)
            if j >= 0:
                S.tasks[i].hold = j
                S.nodes[j].held_for = i
            return
        i = next_bit(S.age_bits, i + 1, len(S.tasks) - 1)


@compiled
def _node_to_keep(i: int, S: World) -> int:
    """Of the nodes that could hold task i and are not kept yet, the one that lacks least; -1: none."""
    best, least = -1, inf
    for j in range(len(S.nodes)):
        if S.nodes[j].held_for < 0 and could_hold(i, j, S):
            missing = max(
                (S.tasks[i].cpu - S.nodes[j].cpu) / max(S.nodes[j].cpu_capacity, 1),
                (S.tasks[i].memory - S.nodes[j].memory) / max(S.nodes[j].memory_capacity, 1),
                (S.tasks[i].gpu - S.nodes[j].gpu) / max(1000 * S.nodes[j].gpu_capacity, 1),
            )
            if missing < least:
                best, least = j, missing
    return best
