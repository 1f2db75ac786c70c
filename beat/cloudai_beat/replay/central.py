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
from .workload import Floats, Ints
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
def _runtime_on(
    weights: tuple[float, float, float, float, float], inv_cpu: float, inv_memory: float, inv_gpu: float, load: float
) -> float:
    """E without the pair's speed, s."""
    w0, w1, w2, w3, w4 = weights
    return w0 + w1 * inv_cpu + w2 * inv_memory + w3 * inv_gpu + w4 * load


@compiled
def _predicted(c: int, j: int, weights: tuple[float, float, float, float, float], S: World) -> float:
    """E of type c on node j, s."""
    return float(_runtime_on(weights, S.inv_cpu[j], S.inv_memory[j], S.inv_gpu[j], S.load[j]) * S.speed[c, j])


@compiled
def _score(
    cpu: int, memory: int, slack: float, weights: tuple[float, float, float, float, float], alpha: float, beta: float,
    room_cpu: Ints, room_memory: Ints, inv_cpu: Floats, inv_memory: Floats, inv_gpu: Floats, load: Floats,
    speed: Floats, offset: Floats, scores: Floats,
) -> None:  # fmt: skip
    """The final risk of a task on every node that has cores, memory and a slot for it; inf elsewhere.

    All arrays have shape (n,). One sweep without a branch, so that a processor does several nodes at once.
    """
    for j in range(len(scores)):
        E = _runtime_on(weights, inv_cpu[j], inv_memory[j], inv_gpu[j], load[j]) * speed[j]
        score = base_risk(alpha, lateness(E, slack), beta, load[j]) + offset[j]
        scores[j] = score if (room_cpu[j] >= cpu) & (room_memory[j] >= memory) else inf


@compiled
def _lowest(scores: Floats) -> float:
    # Four at once: each comparison waits for the one before it.
    a, b, c, d = inf, inf, inf, inf
    whole = len(scores) & ~3
    for j in range(0, whole, 4):
        a, b, c, d = min(a, scores[j]), min(b, scores[j + 1]), min(c, scores[j + 2]), min(d, scores[j + 3])
    for j in range(whole, len(scores)):
        a = min(a, scores[j])
    return min(min(a, b), min(c, d))


@compiled
def _at_most(scores: Floats, bound: float) -> tuple[int, int]:
    """How many scores are at most `bound`, and the sum of their rows: the row itself, if it is one."""
    count, rows = 0, 0
    for j in range(len(scores)):
        found = scores[j] <= bound
        count += found
        rows += j * found
    return count, rows


@compiled
def best_node(policy: int, i: int, now: float, S: World) -> tuple[int, float]:
    """The node of the lowest final risk among those that can take task i now, and E there; -1: none.

    As RTS.rank: equal scores go to the lower E, compared to 7 digits, then to the first row. CLAIRVOYANT takes the
    node where the task really ends first.
    """
    task, gene, scores = S.tasks[i], S.genes[0], S.scores
    c = task.kind
    weights = _weights(i, S)
    if policy == CLAIRVOYANT:
        for j in range(len(scores)):
            scores[j] = true_runtime(i, j, S) if fits(i, j, S) else inf
    else:
        _score(
            task.cpu, task.memory, task.deadline - now, weights, gene.alpha, gene.beta, S.room_cpu, S.room_memory,
            S.inv_cpu, S.inv_memory, S.inv_gpu, S.load, S.speed[c], S.offset[c], scores,
        )  # fmt: skip
        if task.gpu > 0 or task.storage > 0 or task.constraint > 0:
            for j in range(len(scores)):
                if scores[j] < inf and not fits(i, j, S):
                    scores[j] = inf
    if S.state[0].kept > 0:
        for j in range(len(scores)):
            if S.nodes[j].held_for >= 0 and S.nodes[j].held_for != i:
                scores[j] = inf
    lowest = _lowest(scores)
    if lowest == inf:
        return -1, inf
    bound = lowest + SAME * (1.0 + abs(lowest))
    count, best = _at_most(scores, bound)
    if count == 1:
        return best, scores[best] if policy == CLAIRVOYANT else _predicted(c, best, weights, S)
    best, shortest = -1, inf
    for j in range(len(scores)):
        if scores[j] <= bound:
            E = scores[j] if policy == CLAIRVOYANT else _predicted(c, j, weights, S)
            if best < 0 or np.float32(E) < np.float32(shortest):
                best, shortest = j, E
    return best, shortest


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
            best = min(best, _predicted(task.kind, j, weights, S))
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
    best, key, late = _more_urgent(policy, now, True, -1, inf, S)
    if late:
        best, key, late = _more_urgent(policy, now, False, best, key, S)
    return best


@compiled
def _more_urgent(policy: int, now: float, ahead: bool, best: int, best_key: float, S: World) -> tuple[int, float, bool]:
    """The first of task `best`, which is late (or -1: none), and of those that wait and whose deadline is `ahead`, or
    is not: its number, its urgency, and whether it is late.
    """
    state, gene, best_late = S.state[0], S.genes[0], True
    for at in range(state.listed):
        s = S.listed[at]
        shape = S.shapes[s]
        if shape.blocked == state.dispatches:
            continue
        slowdown = _slowdown(shape.example, S)
        if slowdown == inf:
            shape.blocked = state.dispatches
            continue
        place = still_ahead(s, now, S) if ahead else shape.lowest
        while place >= 0:
            i = S.places[place].task
            deadline = S.places[place].deadline
            if not ahead and deadline >= now:
                break
            if deadline > best_key and gene.order_runtime >= 0.0 and best_late != ahead:
                # Nobody is more urgent than the deadline says, and those behind have later ones.
                break
            runtime = _runtime(policy, i, slowdown, S)
            late = not can_make_it(now, runtime, deadline, gene.order_margin)
            if best_late or not late:
                key = urgency(
                    now, runtime, deadline, late, gene.order_runtime, gene.order_lateness, gene.order_caution,
                    gene.order_safety,
                )  # fmt: skip
                first = best < 0 or best_late != late
                if first or key < best_key or (key == best_key and i < best):
                    best, best_key, best_late = i, key, late
            place = next_bit(S.bits, place + 1, shape.highest)
    return best, best_key, best_late


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
