"""A queue at each node, compiled: for the policies that push tasks to nodes on arrival."""

from __future__ import annotations

from .compiled import compiled
from .formulas import can_make_it
from .node_state import fits
from .policies import choose_node, edf_queues, predicted, share_of
from .running import start
from .world import World


@compiled
def enqueue(policy: int, i: int, now: float, S: World) -> None:
    """Task i arrives: it joins a node's queue, and starts if it can. A task that no node could hold is dropped."""
    j = choose_node(policy, i, now, S)
    if j < 0:
        return
    S.tasks[i].queue_next = -1
    if S.nodes[j].queue_last < 0:
        S.nodes[j].queue_first = i
    else:
        S.tasks[S.nodes[j].queue_last].queue_next = i
    S.nodes[j].queue_last = i
    S.nodes[j].queued += 1
    S.tasks[i].predicted = predicted(i, j, S)
    S.nodes[j].queued_work += S.tasks[i].predicted * share_of(i, j, S)
    S.nodes[j].queued_share += share_of(i, j, S)
    serve(policy, j, now, S)


@compiled
def serve(policy: int, j: int, now: float, S: World) -> None:
    """Node j starts what fits from its queue. A task that does not fit lets those behind it pass."""
    edf = edf_queues(policy)
    while S.nodes[j].queued > 0 and S.nodes[j].slots > 0 and S.nodes[j].cpu >= S.state[0].least_cpu:
        chosen, before_chosen, chosen_late = -1, -1, False
        before, i = -1, S.nodes[j].queue_first
        while i >= 0:
            if fits(i, j, S):
                if not edf:
                    chosen, before_chosen = i, before
                    break
                late = not can_make_it(now, predicted(i, j, S), S.tasks[i].deadline, 1.0)
                if (
                    chosen < 0
                    or (chosen_late and not late)
                    or (chosen_late == late and S.tasks[i].deadline < S.tasks[chosen].deadline)
                ):
                    chosen, before_chosen, chosen_late = i, before, late
            before, i = i, S.tasks[i].queue_next
        if chosen < 0:
            return
        if before_chosen < 0:
            S.nodes[j].queue_first = S.tasks[chosen].queue_next
        else:
            S.tasks[before_chosen].queue_next = S.tasks[chosen].queue_next
        if S.nodes[j].queue_last == chosen:
            S.nodes[j].queue_last = before_chosen
        S.nodes[j].queued -= 1
        S.nodes[j].queued_work -= S.tasks[chosen].predicted * share_of(chosen, j, S)
        S.nodes[j].queued_share -= share_of(chosen, j, S)
        if S.nodes[j].queued == 0:
            S.nodes[j].queued_work = 0.0
            S.nodes[j].queued_share = 0.0
        start(chosen, j, now, predicted(chosen, j, S), S)
