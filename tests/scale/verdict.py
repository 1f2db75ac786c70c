"""What a scale run found, as counts; and whether what must be zero is zero."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from .campaign import Evidence
from .observer import Event

#: Counts that must be zero.
ZEROS = (
    "lost", "unfinished", "completed_twice", "overlapped", "wrong_end", "leaks", "overcommitted", "keys_left",
    "grown", "stream_untrimmed", "passed_over", "unsettled", "refused",
)  # fmt: skip
#: How a job of each kind may end.
_ENDS = {
    "usual": {"succeeded"},
    "eta": {"succeeded"},
    "expires": {"succeeded", "expired"},
    "cancelled": {"succeeded", "cancelled"},
    "never": {"cancelled"},
}
#: Entries that an approximate trim leaves beyond what is kept: a macro node of the stream, and the latest batch.
_STREAM_SLACK = 3000
_SHOWN = 12


@dataclass(slots=True)
class Verdict:
    """The counts of one run."""

    seed: int
    nodes: int
    accepted: int
    #: Accepted, and nobody will ever hear how it ended: no final event, or given up although its nodes were to blame.
    lost: int
    #: What the ledger still counts when all should have ended.
    unfinished: int
    #: Tasks with two ends, by the events or by the reports that the ledger took.
    completed_twice: int
    #: Tasks of which two attempts ran at once, by the nodes' own clocks.
    overlapped: int
    #: Tasks that ended otherwise than a job of their kind may.
    wrong_end: int
    #: Reservations that the tasks on a node do not explain.
    leaks: int
    #: Whether more was ever reserved on a node than it has.
    overcommitted: int
    #: Keys that no rule owns or that outlived their TTL.
    keys_left: int
    #: KiB by which Redis's memory has grown beyond the bound.
    grown: int
    #: Events in the stream beyond those that are to be kept, or dropped unread.
    stream_untrimmed: int
    #: Tasks that waited longer than the bound beside an idle node that could take them, when the queue was short.
    passed_over: int
    #: Ended tasks whose result nobody has stored.
    unsettled: int
    #: Submissions that were refused although there was room.
    refused: int
    ends: dict[str, int]
    #: Attempts beyond the first; nodes that fell silent.
    attempts_lost: int
    silent: int
    looks: int
    idle_looks: int
    growth_kib: int
    growth_bound_kib: int
    took_s: float
    figures: dict[str, float] = field(default_factory=dict)
    #: What is behind the counts that are not zero.
    details: list[str] = field(default_factory=list)
    #: Required zeros that are not.
    broken: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(found: Evidence) -> Verdict:
    """Count."""
    plan, details = found.plan, list(found.refused)
    finals: dict[str, list[str]] = defaultdict(list)
    for event in found.events:
        if event.kind == "finished" and event.final:
            finals[event.task_id].append(event.outcome)
    lost = [task_id for task_id in found.kinds if finals.get(task_id, ["lost"])[0] == "lost"]
    details += [f"lost: {found.kinds[i]}: {_story(i, found.events)}" for i in lost]
    completions = Counter(found.completed)
    twice = {i for i, ends in finals.items() if len(ends) > 1} | {i for i, n in completions.items() if n > 1}
    details += [f"completed twice: {i}: {_story(i, found.events)}" for i in twice]
    overlapped = _overlapped(found.runs)
    details += [f"overlapped for {s:.2f} s: {i}: {_story(i, found.events)}" for i, s in overlapped.items()]
    wrong = [i for i, kind in found.kinds.items() if i in finals and not _ENDS[kind] >= {*finals[i]} - {"lost"}]
    details += [f"wrong end: {found.kinds[i]}: {_story(i, found.events)}" for i in wrong]
    passed = {i: one for i, one in found.passed.items() if one.seconds > plan.idle_bound_s}
    details += [
        f"passed over for {one.seconds:.0f} s: {i}, {one.request}: {one.node} was idle" for i, one in passed.items()
    ]
    details += [f"leak: {what}" for what in found.leaks]
    details += [f"left: {what}" for what in found.keys]
    if found.unfinished:
        details.append(f"unfinished: {found.unfinished}")
        details += [f"unfinished: {_story(i, found.events)}" for i in found.kinds if i not in finals]
    bound = plan.growth_fixed + plan.growth_a_task * len(found.kinds)
    verdict = Verdict(
        seed=plan.seed,
        nodes=plan.nodes,
        accepted=len(found.kinds),
        lost=len(lost),
        unfinished=max(found.unfinished.values(), default=0),
        completed_twice=len(twice),
        overlapped=len(overlapped),
        wrong_end=len(wrong),
        leaks=len(found.leaks),
        overcommitted=int(found.max_overcommit > 0),
        keys_left=len(found.keys),
        grown=max(0, found.growth - bound) // 1024,
        stream_untrimmed=max(0, found.stream_length - plan.keep_events - _STREAM_SLACK) + found.dropped,
        passed_over=len(passed),
        unsettled=found.unsettled,
        refused=len(found.refused),
        ends=dict(Counter(ends[0] for i, ends in finals.items() if i in found.kinds)),
        attempts_lost=found.attempts_lost,
        silent=found.silent,
        looks=found.looks,
        idle_looks=found.idle_looks,
        growth_kib=found.growth // 1024,
        growth_bound_kib=bound // 1024,
        took_s=round(found.took_s, 1),
        figures=found.figures,
        details=details,
    )
    verdict.broken = [f"{name} {getattr(verdict, name)}" for name in ZEROS if getattr(verdict, name)]
    return verdict


def _overlapped(runs: list[list[Any]]) -> dict[str, float]:
    """Tasks of which two attempts ran at once, and for how long at most, seconds."""
    by_task: dict[str, list[Any]] = defaultdict(list)
    for task_id, _, _, stretches, _ in runs:
        by_task[task_id].append(stretches)
    found: dict[str, float] = {}
    for task_id, attempts in by_task.items():
        for one, other in combinations(attempts, 2):
            shared = max((min(b, d) - max(a, c) for a, b in one for c, d in other), default=0.0)
            if shared > 0:
                found[task_id] = max(shared, found.get(task_id, 0.0))
    return found


def _story(task_id: str, events: list[Event]) -> str:
    """The events of one task in a line."""
    own = [event for event in events if event.task_id == task_id]
    first = own[0].at if own else 0.0
    return f"{task_id}: " + " > ".join(
        f"{e.at - first:.1f} {e.kind}{':' + e.outcome if e.outcome else ''}{f'({e.reason})' if e.reason else ''} "
        f"{e.node}#{e.attempt}"
        for e in own
    )


def table(verdict: Verdict) -> str:
    """For people."""
    notes = {
        "lost": f"of {verdict.accepted} accepted", "leaks": f"{verdict.looks} looks at all reservations",
        "grown": f"KiB beyond {verdict.growth_bound_kib}; it grew by {verdict.growth_kib}",
        "passed_over": f"{verdict.idle_looks} looks", "unfinished": f"{verdict.ends}",
        "overlapped": f"{verdict.silent} nodes fell silent, {verdict.attempts_lost} attempts were lost",
    }  # fmt: skip
    lines = [f"{name:<20}{getattr(verdict, name):>8}  must be 0  {notes.get(name, '')}".rstrip() for name in ZEROS]
    lines += [f"{name:<44}{value:>12g}" for name, value in verdict.figures.items()]
    lines += [f"{name:<44}{value:>12g}" for name, value in ratios(verdict).items()]
    lines += [line[:500] for line in verdict.details[:_SHOWN]]
    if len(verdict.details) > _SHOWN:
        lines.append(f"... and {len(verdict.details) - _SHOWN} more (--json has them all)")
    judged = f"BROKEN: {'; '.join(verdict.broken)}" if verdict.broken else "all as required"
    lines.append(f"seed {verdict.seed}, {verdict.nodes} nodes, {verdict.took_s:g} s: {judged}")
    return "\n".join(lines)


def ratios(verdict: Verdict) -> dict[str, float]:
    """Figures of all nodes over those of few, of a long queue over a short one."""
    figures = verdict.figures
    small = next((name.rpartition("ms_")[2] for name in figures if name.startswith("submission_p50")), "")
    large = f"{verdict.nodes}_nodes"
    pairs = {
        f"submission_p50 {large} / {small}": (f"submission_p50_ms_{large}", f"submission_p50_ms_{small}"),
        f"submission_p99 {large} / {small}": (f"submission_p99_ms_{large}", f"submission_p99_ms_{small}"),
        "submission_p99 burst / steady": ("submission_p99_ms_burst", f"submission_p99_ms_{large}"),
    }
    return {
        name: round(figures[a] / figures[b], 2) for name, (a, b) in pairs.items() if figures.get(a) and figures.get(b)
    }
