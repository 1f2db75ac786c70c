"""The event loop of a replay, compiled once: arrivals and ends in order of time."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from .central import arrive, dispatch
from .compiled import entry, sources_stamp
from .knowledge import learn
from .node_queues import enqueue, serve
from .policies import is_central
from .running import end, integrate_overload
from .world import World


def _entry(stamp: int) -> Callable[[int, World], float]:
    @entry
    def run(policy: int, S: World) -> float:
        """Replay every task; returns the time of the last event. Ends come before arrivals of the same moment."""
        S.state[0].stamp = stamp
        central = is_central(policy)
        count = len(S.tasks)
        following, now = 0, 0.0
        while True:
            arrival = S.tasks[following].arrival if following < count else inf
            finish = S.heap[0].time if S.state[0].running > 0 else inf
            if finish == inf and arrival == inf:
                break
            if arrival < finish:
                now = arrival
                if central:
                    arrive(policy, following, now, S)
                else:
                    enqueue(policy, following, now, S)
                following += 1
                continue
            now = finish
            i = S.heap[0].task
            j = end(i, now, S)
            if S.state[0].learn_tau > 0:
                learn(i, j, now - S.tasks[i].start, now > S.tasks[i].deadline, S)
            if not central:
                serve(policy, j, now, S)
            elif S.state[0].waiting > 0:
                S.dirty[0] = j
                S.state[0].dirty = 1
                dispatch(policy, now, S)
        if S.state[0].has_pressure:
            for j in range(len(S.nodes)):
                integrate_overload(j, now, S)
        return now

    return run


run = _entry(sources_stamp())
