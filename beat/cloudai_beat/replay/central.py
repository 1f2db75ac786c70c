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
    most_kept,
    runtime_weights,
    urgency,
    waited_too_long,
)
from .knowledge import tau_of
from .node_state import could_hold, fits
from .policies import CLAIRVOYANT
from .running import start, true_runtime
from .waiting_set import next_bit, oldest, park, still_ahead, unpark
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
def best_node(policy: int, i: int, now: float, S: World) -> tuple[int, float]:
    """The node of the lowest final risk among those that can take task i now, and E there; -1: none.

    As RTS.rank: equal scores go to the lower E, compared to 7 digits, then to the first row. CLAIRVOYANT takes the
    node where the task really ends first.
    """
    task, gene = S.tasks[i], S.genes[0]
    c = task.kind
    weights = _weights(i, S)
    slack = task.deadline - now
    alpha, beta = gene.alpha, gene.beta
    kept = S.state[0].kept > 0
    cpu, memory, storage, asks_more = task.cpu, task.memory, task.storage, task.gpu > 0 or task.constraint > 0
    best, lowest, best_E = -1, inf, inf
    for j in range(len(S.nodes)):
        node = S.nodes[j]
        # As `fits`, whose call would be half of the time.
        if node.cpu < cpu or node.memory < memory or node.slots < 1 or node.storage < storage:
            continue
        if asks_more and not fits(i, j, S):
            continue
        if kept and node.held_for >= 0 and node.held_for != i:
            continue
        if policy == CLAIRVOYANT:
            E = true_runtime(i, j, S)
            score = E
        else:
            pair = S.pairs[c, j]
            E = _predicted(j, weights, S) * pair.speed
            score = base_risk(alpha, lateness(E, slack), beta, node.load) + pair.offset
        same = SAME * (1.0 + abs(lowest)) if best >= 0 else 0.0
        if best < 0 or score < lowest - same:
            best, lowest, best_E = j, score, E
        elif score <= lowest + same:
            lowest = min(lowest, score)
            if np.float32(E) < np.float32(best_E):
                best, best_E = j, E
    return best, best_E


@compiled
def arrive(policy: int, i: int, now: float, S: World) -> None:
    """Task i arrives: it is placed if a node can take it, else it waits."""
    j, E = best_node(policy, i, now, S)
    if j >= 0:
        start(i, j, now, E, S)
    else:
        park(i, S)


@compiled
def dispatch(policy: int, now: float, S: World) -> None:
    """Place waiting tasks on the nodes that have new room, in dispatch order, until nothing fits."""
    state = S.state[0]
    state.dispatches += 1
    turn = floor(now)
    placed = False
    while state.waiting > 0:
        i = _kept_for(S) if state.kept > 0 else -1
        if i < 0 and turn % state.aged_share == 0:
            i = _aged(policy, now, S)
        if i < 0:
            i = _most_urgent(policy, now, S)
        if i < 0:
            break
        turn += 1
        j, E = best_node(policy, i, now, S)
        if j < 0:
            S.shapes[S.tasks[i].shape].blocked = state.dispatches
            continue
        unpark(i, S)
        _let_go(i, j, S)
        start(i, j, now, E, S)
        placed = True
    state.dirty = 0
    if not placed and state.waiting > 0:
        _keep_node_for_starving(now, S)


@compiled
def _let_go(i: int, j: int, S: World) -> None:
    """Task i, placed on node j, has no node kept any more; another one's room is offered now."""
    kept = S.tasks[i].hold
    if kept < 0:
        return
    S.tasks[i].hold = -1
    S.nodes[kept].held_for = -1
    S.state[0].kept -= 1
    if kept != j:
        S.dirty[S.state[0].dirty] = kept
        S.state[0].dirty += 1


@compiled
def _kept_for(S: World) -> int:
    """A task that a node with new room is kept for, and that fits there now; -1: none."""
    for at in range(S.state[0].dirty):
        i = S.nodes[S.dirty[at]].held_for
        if i >= 0 and fits(i, S.dirty[at], S):
            return int(i)
    return -1


@compiled
def _open_to(i: int, S: World) -> bool:
    """Whether a node with new room can take task i, which has no node kept."""
    for at in range(S.state[0].dirty):
        j = S.dirty[at]
        if S.nodes[j].held_for < 0 and fits(i, j, S):
            return True
    return False


@compiled
def _slowdown(i: int, S: World) -> float:
    """E over tau on the best of the nodes with new room that can take task i (and all of its shape); inf: none can."""
    task, gene = S.tasks[i], S.genes[0]
    best = inf
    weights = runtime_weights(
        1.0, gene.theta1, gene.theta2, gene.theta3, gene.theta4, task.cpu / MILLI, task.memory / KIB_PER_GIB,
        task.gpu / MILLI,
    )  # fmt: skip
    for at in range(S.state[0].dirty):
        j = S.dirty[at]
        if S.nodes[j].held_for < 0 and fits(i, j, S):
            best = min(best, _predicted(j, weights, S) * S.pairs[task.kind, j].speed)
    return float(best * S.kinds[task.kind].base)


@compiled
def _runtime(policy: int, i: int, slowdown: float, S: World) -> float:
    """What task i is expected to run on the best of the nodes with new room, s."""
    if policy != CLAIRVOYANT:
        return tau_of(i, S) * slowdown
    best = inf
    for at in range(S.state[0].dirty):
        j = S.dirty[at]
        if S.nodes[j].held_for < 0 and fits(i, j, S):
            best = min(best, true_runtime(i, j, S))
    return best


@compiled
def _most_urgent(policy: int, now: float, S: World) -> int:
    """The waiting task that goes first of those that fit on the nodes with new room; -1: none (dispatch_order).

    Those whose deadline is still ahead are looked at first: mostly one of them can make it, and the late ones, who may
    be many, need not be looked at.
    """
    state, gene = S.state[0], S.genes[0]
    best, best_key, best_late = -1, inf, True
    for at in range(state.listed):
        s = S.listed[at]
        shape = S.shapes[s]
        if shape.blocked == state.dispatches:
            continue
        slowdown = _slowdown(shape.example, S)
        if slowdown == inf:
            shape.blocked = state.dispatches
            continue
        place = still_ahead(s, now, S)
        while place >= 0:
            i = S.places[place].task
            deadline = S.places[place].deadline
            runtime = _runtime(policy, i, slowdown, S)
            if can_make_it(now, runtime, deadline, gene.order_margin):
                key = urgency(deadline, runtime, 0.0, gene.order_runtime, gene.order_lateness)
                if best_late or key < best_key or (key == best_key and i < best):
                    best, best_key, best_late = i, key, False
                if gene.order_runtime == 0.0:
                    break
            elif best_late:
                late_s = max(now + runtime - deadline, 0.0)
                key = urgency(deadline, runtime, late_s, gene.order_runtime, gene.order_lateness)
                if best < 0 or key < best_key or (key == best_key and i < best):
                    best, best_key = i, key
            place = next_bit(S.bits, place + 1, shape.highest)
    if best_late:
        return _most_urgent_late(policy, now, best, best_key, S)
    return best


@compiled
def _most_urgent_late(policy: int, now: float, best: int, best_key: float, S: World) -> int:
    """As _most_urgent, among those whose deadline has passed, and `best` of the others."""
    state, gene = S.state[0], S.genes[0]
    by_deadline = gene.order_runtime == 0.0 and gene.order_lateness == 0.0
    for at in range(state.listed):
        s = S.listed[at]
        shape = S.shapes[s]
        if shape.blocked == state.dispatches:
            continue
        slowdown = _slowdown(shape.example, S)
        place = shape.lowest
        while place >= 0:
            i = S.places[place].task
            deadline = S.places[place].deadline
            if deadline >= now:
                break
            runtime = _runtime(policy, i, slowdown, S)
            late_s = max(now + runtime - deadline, 0.0)
            key = urgency(deadline, runtime, late_s, gene.order_runtime, gene.order_lateness)
            if best < 0 or key < best_key or (key == best_key and i < best):
                best, best_key = i, key
            if by_deadline:
                break
            place = next_bit(S.bits, place + 1, shape.highest)
    return best


@compiled
def _aged(policy: int, now: float, S: World) -> int:
    """The late task that has waited longest of those that have waited too long, and fits; -1: none."""
    state = S.state[0]
    if now < state.next_aged:
        return -1
    state.next_aged = inf
    i = oldest(S)
    while i >= 0:
        task = S.tasks[i]
        waited, window = now - task.arrival, task.deadline - task.arrival
        if waited < state.aged_after:
            state.next_aged = min(state.next_aged, task.arrival + state.aged_after)
            return -1
        if waited_too_long(waited, window, state.aged_after):
            state.next_aged = now
            if S.shapes[task.shape].blocked != state.dispatches and _open_to(i, S):
                runtime = _runtime(policy, i, _slowdown(i, S), S)
                if not can_make_it(now, runtime, task.deadline, S.genes[0].order_margin):
                    return i
        else:
            state.next_aged = min(state.next_aged, now + 0.1 * waited)
        i = next_bit(S.age_bits, i + 1, len(S.tasks) - 1)
    return -1


@compiled
def _keep_node_for_starving(now: float, S: World) -> None:
    """Keep a node for the task that has waited longest once it has waited `starving_after`, and has none."""
    state = S.state[0]
    if now < state.next_starving or state.kept >= most_kept(len(S.nodes)):
        return
    state.next_starving = inf
    i = oldest(S)
    while i >= 0:
        task = S.tasks[i]
        if now - task.arrival < state.starving_after:
            state.next_starving = min(state.next_starving, task.arrival + state.starving_after)
            return
        if task.hold < 0:
            state.next_starving = now
            j = _node_to_keep(i, S)
            if j >= 0:
                task.hold = j
                S.nodes[j].held_for = i
                state.kept += 1
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
