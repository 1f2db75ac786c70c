"""What a campaign found, as counts; and whether what must be zero is zero."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from cloudai.names import FINAL_STATES

from .campaign import Evidence
from .history import unrecorded
from .load import Submitted
from .witness import overlaps

#: Beyond the lease, a dead node's tasks must run again within this, seconds.
RECOVERY_ALLOWANCE_S = 5.0
#: Counts that must be zero.
ZEROS = (
    "lost", "duplicated", "overlapped", "reservation_leaks", "max_overcommit", "unfinished", "wrong", "died",
    "unrecorded", "undone",
)  # fmt: skip
_SHOWN = 12


@dataclass(slots=True)
class Verdict:
    """The counts of one campaign."""

    #: Submissions, refused ones included.
    attempted: int
    accepted: int
    #: Accepted, and ended with the right result.
    succeeded: int
    #: Accepted, and without an end or a result: nobody will ever hear of it.
    lost: int
    #: Accepted, taken from a node that was gone, and succeeded all the same.
    recovered: int
    #: Starts beyond the first, by the jobs' own witness.
    reruns: int
    #: Tasks with two final ends.
    duplicated: int
    #: Jobs of which two attempts ran, unpaused, at once.
    overlapped: int
    #: Those of them that are Python tasks in threads, which cannot be frozen.
    overlapped_in_threads: int
    reservation_leaks: int
    #: Largest share of a capacity given away beyond it.
    max_overcommit: float
    #: From the last heartbeat of a node that was gone until its task was claimed again; Redis was there meanwhile, and
    #: another node that could take it.
    recovery_p95_s: float
    recovery_max_s: float
    recoveries: int
    #: The same, but Redis was away meanwhile: no node is judged before all had time to speak again.
    recoveries_across_outages: int
    #: The same, of tasks that no other node can run: they wait until theirs is back.
    recoveries_on_the_same_node: int
    lease_s: float
    #: Accepted, and ended in another way; the reasons are in `failures`.
    failed: int
    #: Tasks in the ledger that have not ended, accepted or not.
    unfinished: int
    #: Accepted, and ended with a wrong result.
    wrong: int
    #: Nodes, and processes beside them, that ended although nobody had killed them.
    died: int
    #: Tasks whose history in the document store is not whole, once it is back.
    unrecorded: int
    #: What else the control process did not come to do, once it is back.
    undone: int
    #: Epochs of the optimiser that have ended.
    epochs: int
    tasks: int
    looks: int
    poison_kinds: int
    seed: int
    took_s: float
    injected: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    #: What is behind the counts that are not zero.
    details: list[str] = field(default_factory=list)
    #: Required zeros that are not.
    broken: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(found: Evidence) -> Verdict:
    """Count."""
    accepted = [one for one in found.submitted if one.accepted]
    finals = Counter(e["id"] for e in found.events if e["event"] == "finished" and e.get("final") == "1")
    again = _taken_again(found)
    details: list[str] = list(found.died)
    lost = succeeded = failed = wrong = recovered = 0
    failures: Counter[str] = Counter()
    for one in accepted:
        outcome = _outcome(one, found)
        if outcome == "lost":
            lost += 1
            where = {task_id: found.states.get(task_id, "") for task_id in one.task_ids}
            details.append(f"lost: {one.kind}: {where}")
        elif outcome == "succeeded":
            succeeded += 1
            recovered += any(task_id in again for task_id in one.task_ids)
        elif outcome == "wrong":
            wrong += 1
            details.append(f"wrong: {one.kind} {one.task_ids}: {found.results.get(one.task_ids[-1])}")
        else:
            failed += 1
            failures[f"{one.kind}: {outcome}"] += 1
    twice = [task_id for task_id, ends in finals.items() if ends > 1]
    details += [f"duplicated: {task_id}: {_story(task_id, found)}" for task_id in twice]
    overlapped = in_threads = 0
    containers = {i for one in found.submitted if one.kind in ("process", "docker") for i in one.task_ids}
    for key, runs in found.runs.items():
        pairs = overlaps(runs)
        overlapped += bool(pairs)
        in_threads += bool(pairs) and key not in containers
        details += [f"overlapped for {s:.1f} s: {key}: {_story(key, found)}" for _, _, s in pairs[:1]]
    unfinished = [i for i, state in found.states.items() if state and state not in FINAL_STATES]
    details += [f"unfinished: {i}: {_story(i, found)}" for i in unfinished]
    details += [f"leak: {what}" for what in found.leaks]
    missing = _unrecorded(found, accepted)
    details += [f"unrecorded: {task_id}: {what}; {_story(task_id, found)}" for task_id, what in missing.items()]
    details += found.undone
    recoveries = [one for of_task in again.values() for one in of_task]
    clean = sorted(one.seconds for one in recoveries if one.judged)
    limit = found.plan.lease_s + RECOVERY_ALLOWANCE_S
    details += [
        f"slow: {one.seconds:.1f} s: {one.task_id}: {_story(one.task_id, found)}"
        for one in recoveries
        if one.judged and one.seconds > limit
    ]
    verdict = Verdict(
        attempted=len(found.submitted),
        accepted=len(accepted),
        succeeded=succeeded,
        lost=lost,
        recovered=recovered,
        reruns=sum(len(runs) - 1 for runs in found.runs.values()),
        duplicated=len(twice),
        overlapped=overlapped,
        overlapped_in_threads=in_threads,
        reservation_leaks=len(found.leaks),
        max_overcommit=round(found.max_overcommit, 4),
        recovery_p95_s=round(_quantile(clean, 0.95), 2),
        recovery_max_s=round(clean[-1], 2) if clean else 0.0,
        recoveries=len(clean),
        recoveries_across_outages=sum(one.across_outage for one in recoveries),
        recoveries_on_the_same_node=sum(one.bound and not one.across_outage for one in recoveries),
        lease_s=found.plan.lease_s,
        failed=failed,
        unfinished=len(unfinished),
        wrong=wrong,
        died=len(found.died),
        unrecorded=len(missing),
        undone=len(found.undone),
        epochs=found.epochs,
        tasks=len(found.states),
        looks=found.looks,
        poison_kinds=found.poison_kinds,
        seed=found.plan.seed,
        took_s=round(found.took_s, 1),
        injected=dict(found.injected),
        skipped=found.skipped,
        failures=dict(failures),
        refusals=dict(Counter(one.refusal.partition(":")[0] for one in found.submitted if not one.accepted)),
        details=details,
    )
    verdict.broken = [f"{name} {getattr(verdict, name)}" for name in ZEROS if getattr(verdict, name)]
    if found.plan.judges_recovery and verdict.recovery_p95_s > limit:
        verdict.broken.append(f"recovery_p95_s {verdict.recovery_p95_s} above {limit:g}")
    return verdict


def table(verdict: Verdict) -> str:
    """For people."""
    must = "must be 0"
    limit = verdict.lease_s + RECOVERY_ALLOWANCE_S
    rows = [
        ("attempted", verdict.attempted, ", ".join(f"{n} {k}" for k, n in verdict.refusals.items() if n) or ""),
        ("accepted", verdict.accepted, f"{verdict.tasks} tasks with those of chains, chords and beat"),
        ("succeeded", verdict.succeeded, ""),
        ("failed", verdict.failed, "; ".join(f"{n} {k}" for k, n in verdict.failures.items())),
        ("lost", verdict.lost, must),
        ("unfinished", verdict.unfinished, must),
        ("wrong results", verdict.wrong, must),
        ("recovered", verdict.recovered, ""),
        ("reruns", verdict.reruns, "starts beyond the first, by the jobs' own witness"),
        ("duplicated", verdict.duplicated, must),
        ("overlapped", verdict.overlapped, must),
        ("reservation leaks", verdict.reservation_leaks, f"{must}; {verdict.looks} looks"),
        ("largest over-commitment", verdict.max_overcommit, must),
        ("not in the history", verdict.unrecorded, f"{must}; of {verdict.tasks} tasks, once the store was back"),
        ("control's work not done", verdict.undone, f"{must}; {verdict.epochs} epochs have ended"),
        ("processes that died of something", verdict.died, f"{must}; {verdict.poison_kinds} kinds of poison"),
        ("recovery p95, s", verdict.recovery_p95_s, f"of {verdict.recoveries}; at most {limit:g}, the lease and 5"),
        (
            "recovery longest, s",
            verdict.recovery_max_s,
            f"{verdict.recoveries_across_outages} more across outages, {verdict.recoveries_on_the_same_node} where no "
            "other node can",
        ),
    ]
    lines = [f"{name:<33}{value!s:>6}  {note[:100]}" for name, value, note in rows]
    lines.append("injected: " + ", ".join(f"{what} {n}" for what, n in sorted(verdict.injected.items())))
    lines += [f"SKIPPED: {what}: {why}" for what, why in verdict.skipped.items()]
    lines += verdict.details[:_SHOWN]
    if len(verdict.details) > _SHOWN:
        lines.append(f"... and {len(verdict.details) - _SHOWN} more (--json has them all)")
    judged = f"BROKEN: {'; '.join(verdict.broken)}" if verdict.broken else "all as required"
    lines.append(f"seed {verdict.seed}, {verdict.took_s:g} s: {judged}")
    return "\n".join(lines)


def _unrecorded(found: Evidence, accepted: Sequence[Submitted]) -> dict[str, str]:
    if found.history is None:
        return {}
    return unrecorded(
        found.history,
        states=found.states,
        accepted=[one.task_ids for one in accepted],
        events=found.events,
        succeeded={task_id for task_id, (state, _) in found.results.items() if state == "SUCCESS"},
    )


def _outcome(one: Submitted, found: Evidence) -> str:
    for task_id in one.task_ids:
        state, value = found.results.get(task_id, ("", None))
        if state in ("FAILURE", "REVOKED"):
            return f"{type(value).__name__}: {value}"[:80]
    state, value = found.results.get(one.task_ids[-1], ("", None))
    if state != "SUCCESS":
        return "lost"
    return "succeeded" if one.expected is None or value == one.expected else "wrong"


@dataclass(frozen=True, slots=True)
class _Recovery:
    """A task that was claimed again after its node was gone."""

    task_id: str
    #: From that node's last heartbeat.
    seconds: float
    #: Redis was away meanwhile.
    across_outage: bool
    #: There is one node that can run it: the one that was gone.
    bound: bool

    @property
    def judged(self) -> bool:
        """Whether its time says how long a recovery takes."""
        return not self.across_outage and not self.bound


def _taken_again(found: Evidence) -> dict[str, list[_Recovery]]:
    """The recoveries of each task."""
    taken: dict[str, list[_Recovery]] = defaultdict(list)
    # One place has an engine.
    bound = {task_id for one in found.submitted if one.kind == "docker" for task_id in one.task_ids}
    running: dict[str, tuple[str, float]] = {}
    for event in found.events:
        task_id, kind = event["id"], event["event"]
        if kind == "finished" or (kind == "waiting" and event.get("reason") in ("unclaimed", "requeued", "retry")):
            running.pop(task_id, None)
        elif kind == "claimed":
            at = float(event["at"])
            if task_id in running:
                node, since = running[task_id]
                last = _last_heartbeat(found, node, since, at)
                if last is not None:
                    outage = any(a < at and b > last for a, b in found.outages)
                    taken[task_id].append(_Recovery(task_id, at - last, outage, task_id in bound))
            running[task_id] = (event["node"], at)
    return taken


def _last_heartbeat(found: Evidence, node: str, since: float, until: float) -> float | None:
    """The last one before a node's longest silence between two moments; the claim too is a sign of life."""
    beats = [since, *(beat for beat in found.heartbeats.get(node, []) if since < beat < until), until]
    silences = [(b - a, a) for a, b in pairwise(beats)]
    return max(silences)[1] if silences else None


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _story(task_id: str, found: Evidence) -> str:
    """The events of one task in a line."""
    first = next((float(e["at"]) for e in found.events if e["id"] == task_id), 0.0)
    return " > ".join(
        f"{float(e['at']) - first:.1f} {e['event']}{':' + e['outcome'] if 'outcome' in e else ''}"
        f"{'(' + e['reason'] + ')' if e.get('reason') else ''} {e.get('node', '')}#{e.get('attempt', '')}"
        for e in found.events
        if e["id"] == task_id
    )
