"""Starting and ending tasks, compiled: the true runtime, the heap of ends, the tasks that run on each node."""

from __future__ import annotations

from .compiled import compiled
from .formulas import contention
from .node_state import release, reserve
from .world import World


@compiled
def true_runtime(i: int, j: int, S: World) -> float:
    """How long task i would run on node j if it started now, s."""
    task, node, theta = S.tasks[i], S.nodes[j], S.contention
    cpu, memory, gpu = task.cpu / max(node.cpu, 1), task.memory / max(node.memory, 1), task.gpu / max(node.gpu, 1)
    slowed = contention(theta[0], theta[1], theta[2], theta[3], cpu, memory, gpu, S.load[j])
    return float(task.runtime * S.pairs[task.kind, j].factor * task.noise * slowed)


@compiled
def start(i: int, j: int, now: float, predicted: float, S: World) -> None:
    """Task i starts on node j, where it fits."""
    runtime = true_runtime(i, j, S)
    S.tasks[i].start = now
    S.tasks[i].finish = now + runtime
    S.tasks[i].node = j
    S.tasks[i].predicted = predicted
    S.tasks[i].load_at_start = S.load[j]
    if S.state[0].has_pressure:
        integrate_overload(j, now, S)
    S.tasks[i].devices = reserve(i, j, _cores_in_use(i, S), S.nodes[j].pressure, S)
    first = S.nodes[j].run_first
    S.tasks[i].run_next = first
    S.tasks[i].run_previous = -1
    if first >= 0:
        S.tasks[first].run_previous = i
    S.nodes[j].run_first = i
    S.state[0].decisions += 1
    _push(S, now + runtime, i)


@compiled
def end(i: int, now: float, S: World) -> int:
    """Task i, the first of the heap, ends; its node."""
    _pop(S)
    j = S.tasks[i].node
    if S.state[0].has_pressure:
        integrate_overload(j, now, S)
    release(i, j, _cores_in_use(i, S), S.tasks[i].devices, S.nodes[j].pressure, S)
    before, after = S.tasks[i].run_previous, S.tasks[i].run_next
    if before >= 0:
        S.tasks[before].run_next = after
    else:
        S.nodes[j].run_first = after
    if after >= 0:
        S.tasks[after].run_previous = before
    return int(j)


@compiled
def integrate_overload(j: int, now: float, S: World) -> None:
    """Add what was above 1 since the last change of the node's load."""
    if S.load[j] > 1.0:
        S.nodes[j].overload += (S.load[j] - 1.0) * (now - S.nodes[j].overload_at)
    S.nodes[j].overload_at = now


@compiled
def _cores_in_use(i: int, S: World) -> int:
    return int(S.tasks[i].cpu * S.kinds[S.tasks[i].kind].cpu_use + 0.5)


@compiled
def _push(S: World, time: float, i: int) -> None:
    """Into the heap; of equal times the earlier task comes first."""
    S.state[0].running += 1
    _up(S, S.state[0].running - 1, time, i)


@compiled
def _up(S: World, at: int, time: float, i: int) -> None:
    """An end goes into the gap at place `at`, or as far up from there as it belongs."""
    while at > 0:
        parent = (at - 1) >> 1
        above = S.heap[parent].time
        if above < time or (above == time and S.heap[parent].task < i):
            break
        S.heap[at].time = above
        S.heap[at].task = S.heap[parent].task
        at = parent
    S.heap[at].time = time
    S.heap[at].task = i


@compiled
def _pop(S: World) -> None:
    S.state[0].running -= 1
    count = S.state[0].running
    time, i = S.heap[count].time, S.heap[count].task
    # The gap goes down to a leaf, always to the earlier child, with no branch that a processor could foretell wrongly;
    # the last end goes there, and mostly belongs there.
    at, child = 0, 1
    while child < count:
        left, right = S.heap[child], S.heap[child + 1]
        earlier = (right.time < left.time) | ((right.time == left.time) & (right.task < left.task))
        child += (child + 1 < count) & earlier
        S.heap[at].time = S.heap[child].time
        S.heap[at].task = S.heap[child].task
        at, child = child, 2 * child + 1
    _up(S, at, time, i)
