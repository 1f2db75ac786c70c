"""The policies of a replay: their codes, and the node that each node-queue policy chooses on arrival (compiled).

Central policies (RTS, CLAIRVOYANT) hold tasks in one waiting set (central.py). The others push each task to a node's
queue on arrival; a node starts what fits from its queue, in the order that `edf_queues` says (node_queues.py).
"""

from __future__ import annotations

from .compiled import compiled
from .formulas import contention
from .knowledge import tau_of
from .node_state import could_hold, fits
from .world import World

RTS, CLAIRVOYANT, ROUND_ROBIN, LEAST_LOADED, POWER_OF_TWO, JOIN_SHORTEST_QUEUE, K8S_LEAST_ALLOCATED, MCT, HYBRID_EDF = (
    range(9)
)

#: Code of each policy by its name.
POLICIES: dict[str, int] = {
    "rts": RTS,
    "clairvoyant": CLAIRVOYANT,
    "round-robin": ROUND_ROBIN,
    "least-loaded": LEAST_LOADED,
    "power-of-two": POWER_OF_TWO,
    "join-shortest-queue": JOIN_SHORTEST_QUEUE,
    "k8s-least-allocated": K8S_LEAST_ALLOCATED,
    "mct": MCT,
    "hybrid-edf": HYBRID_EDF,
}


@compiled
def is_central(policy: int) -> bool:
    """Whether the policy keeps tasks in one waiting set."""
    return policy <= CLAIRVOYANT


@compiled
def edf_queues(policy: int) -> bool:
    """Whether a node serves its queue by deadline, hopeless tasks last; else in order of arrival."""
    return policy == HYBRID_EDF


@compiled
def predicted(i: int, j: int, S: World) -> float:
    """What a node-queue policy expects task i to run on node j, s: the learned tau, base and speed."""
    c = S.tasks[i].kind
    return float(tau_of(i, S) * S.kinds[c].base * S.speed[c, j])


@compiled
def share_of(i: int, j: int, S: World) -> float:
    """The largest share of node j's capacity that task i asks for, 0..1; the reciprocal is how many fit at once."""
    share = max(
        S.tasks[i].cpu / max(S.nodes[j].cpu_capacity, 1), S.tasks[i].memory / max(S.nodes[j].memory_capacity, 1)
    )
    share = max(share, 1.0 / max(S.nodes[j].slots_capacity, 1))
    if S.tasks[i].gpu > 0:
        share = max(share, S.tasks[i].gpu / (1000.0 * max(S.nodes[j].gpu_capacity, 1)))
    return float(share)


@compiled
def backlog(j: int, now: float, S: World) -> float:
    """Predicted seconds until node j would have worked off what runs and waits there, all of it together."""
    work = S.nodes[j].queued_work
    i = S.nodes[j].run_first
    while i >= 0:
        work += max(S.tasks[i].start + S.tasks[i].predicted - now, 0.0) * share_of(i, j, S)
        i = S.tasks[i].run_next
    return float(work)


@compiled
def starts_now(i: int, j: int, S: World) -> bool:
    """Whether task i would start at once if it joined node j's queue."""
    return bool(S.nodes[j].queued == 0 and fits(i, j, S))


@compiled
def expected_now(i: int, j: int, S: World) -> float:
    """What task i is expected to run if it starts on node j now, s: E, as the score has it (spec section 5)."""
    task, node, gene = S.tasks[i], S.nodes[j], S.genes[0]
    return float(
        predicted(i, j, S)
        * contention(
            gene.theta1, gene.theta2, gene.theta3, gene.theta4, task.cpu / max(node.cpu, 1),
            task.memory / max(node.memory, 1), task.gpu / max(node.gpu, 1), S.load[j],
        )
    )  # fmt: skip


@compiled
def choose_node(policy: int, i: int, now: float, S: World) -> int:
    """The node whose queue task i joins on arrival; -1: no node could ever hold it."""
    if policy == ROUND_ROBIN:
        return _round_robin(i, S)
    if policy == POWER_OF_TWO:
        return _better_of_two(i, S)
    if policy == HYBRID_EDF:
        j = _fastest_now(i, S)
        if j >= 0:
            return j
    best, lowest = -1, 0.0
    for j in range(len(S.nodes)):
        if could_hold(i, j, S):
            if policy == LEAST_LOADED:
                value = _crowd(j, S)
            elif policy == JOIN_SHORTEST_QUEUE:
                # Of equally long queues, the one of the node with more room.
                value = S.nodes[j].queued + min(S.load[j], 1.0) / 2.0 + (0.0 if starts_now(i, j, S) else 0.5)
            elif policy == K8S_LEAST_ALLOCATED:
                value = _allocated(i, j, S)
            else:
                value = _completion(i, j, now, S)
            if best < 0 or value < lowest:
                best, lowest = j, value
    return best


@compiled
def _round_robin(i: int, S: World) -> int:
    count = len(S.nodes)
    for step in range(count):
        j = (S.state[0].position + step) % count
        if could_hold(i, j, S):
            S.state[0].position = j + 1
            return int(j)
    return -1


@compiled
def _crowd(j: int, S: World) -> float:
    """Load of node j with all that waits in its queue: above 1 where it is more than the node can run at once."""
    return float(S.load[j] + S.nodes[j].queued_share)


@compiled
def _better_of_two(i: int, S: World) -> int:
    """The less crowded of two nodes drawn from those that could hold task i."""
    able = 0
    for j in range(len(S.nodes)):
        able += could_hold(i, j, S)
    if able == 0:
        return -1
    first = _random(able, S)
    second = _random(able - 1, S) if able > 1 else 0
    second += second >= first and able > 1
    best, place = -1, 0
    for j in range(len(S.nodes)):
        if could_hold(i, j, S):
            if place in (first, second) and (best < 0 or _crowd(j, S) < _crowd(best, S)):
                best = j
            place += 1
    return best


@compiled
def _random(count: int, S: World) -> int:
    """A number from 0 to count - 1; the constants are those of a common linear congruential generator."""
    S.state[0].random = (S.state[0].random * 1103515245 + 12345) & 0x7FFFFFFF
    # The low digits of such a generator repeat soon.
    return int((S.state[0].random >> 8) % max(count, 1))


@compiled
def _allocated(i: int, j: int, S: World) -> float:
    """Mean over the resources that the task asks for of what would be reserved, and what waits there on top."""
    task, node = S.tasks[i], S.nodes[j]
    total, kinds = 0.0, 0
    if task.cpu > 0:
        total += (node.cpu_capacity - node.cpu + task.cpu) / max(node.cpu_capacity, 1)
        kinds += 1
    if task.memory > 0:
        total += (node.memory_capacity - node.memory + task.memory) / max(node.memory_capacity, 1)
        kinds += 1
    if task.gpu > 0:
        total += 1.0 - (node.gpu - task.gpu) / max(1000.0 * node.gpu_capacity, 1.0)
        kinds += 1
    return float(total / max(kinds, 1) + node.queued_share)


@compiled
def _fastest_now(i: int, S: World) -> int:
    """The node that ends task i first of those that can start it now; -1: none can."""
    best, lowest = -1, 0.0
    for j in range(len(S.nodes)):
        if starts_now(i, j, S):
            runtime = expected_now(i, j, S)
            if best < 0 or runtime < lowest:
                best, lowest = j, runtime
    return best


@compiled
def _completion(i: int, j: int, now: float, S: World) -> float:
    """Predicted seconds until node j would have finished task i."""
    if starts_now(i, j, S):
        return expected_now(i, j, S)
    return backlog(j, now, S) + predicted(i, j, S)
