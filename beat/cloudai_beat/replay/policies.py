"""The policies of a replay: their codes, and the node that each node-queue policy chooses on arrival (compiled).

Central policies (RTS, CLAIRVOYANT) hold tasks in one waiting set (central.py). The others push each task to a node's
queue on arrival; a node starts what fits from its queue, in the order that `edf_queues` says (node_queues.py).
"""

from __future__ import annotations

from .compiled import compiled
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
    return float(tau_of(i, S) * S.kinds[c].base * S.pairs[c, j].speed)


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
def choose_node(policy: int, i: int, now: float, S: World) -> int:
    """The node whose queue task i joins on arrival; -1: no node could ever hold it."""
    if policy == ROUND_ROBIN:
        return _round_robin(i, S)
    if policy == MCT:
        return _minimum_completion(i, now, S)
    return _round_robin(i, S)


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
def _minimum_completion(i: int, now: float, S: World) -> int:
    best, soonest = -1, 0.0
    for j in range(len(S.nodes)):
        if not could_hold(i, j, S):
            continue
        wait = 0.0 if S.nodes[j].queued == 0 and fits(i, j, S) else backlog(j, now, S)
        completion = wait + predicted(i, j, S)
        if best < 0 or completion < soonest:
            best, soonest = j, completion
    return best
