"""The demo's verdict: what witnesses, Celery's results, events and decision records say together."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cloudai.demo.learning import Learned, NodeSpeed, node_speeds
from cloudai.demo.observer import JobTrace
from cloudai.scheduling.parameters import GAParams

#: Share of fallbacks to Round-Robin above which the demo has failed (spec section 5: the alert).
FALLBACK_LIMIT = 0.10


@dataclass(frozen=True, slots=True)
class JobEvidence:
    """One job after the demo, from four sources that do not know each other."""

    key: str
    task_id: str
    #: From 1.
    wave: int
    task_type: str
    work: str
    trace: JobTrace
    #: Lines that the job itself wrote when it began.
    starts: int
    #: Lines that the job itself wrote when its answer was right.
    ends: int
    #: State of its Celery result.
    result: str
    #: What went wrong, as the result says; "" if nothing did.
    problem: str
    #: Decision record with full names, None where none is kept.
    decision: Mapping[str, Any] | None

    @property
    def succeeded(self) -> bool:
        """Its result says success and its witness says that the answer was right."""
        return self.result == "SUCCESS" and self.ends > 0

    @property
    def lost(self) -> bool:
        """It has no result, or one that says success although the job never got to its end."""
        if self.result == "SUCCESS":
            return self.ends == 0
        return self.result not in ("FAILURE", "REVOKED")

    @property
    def duplicated(self) -> bool:
        """It began, was claimed, or was finished with success more than once."""
        return self.starts > 1 or self.ends > 1 or self.trace.claims > 1 or self.trace.successes > 1


@dataclass(frozen=True, slots=True)
class Waiting:
    """Arrival to claim, over all jobs, seconds."""

    #: Jobs that found no free node when they came.
    jobs_that_waited: int
    median_s: float
    p95_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What `cloudai demo --json` prints."""

    jobs: int
    succeeded: int
    failed: int
    lost: int
    #: Jobs that ran more than once.
    duplicated: int
    #: Share of the jobs that succeeded by their deadline.
    sla_rate: float
    #: The same by wave, the first first.
    sla_rate_by_wave: list[float]
    #: Share of the decisions that Round-Robin took because RTS could not.
    fallback_rate: float
    #: Fallbacks by reason.
    fallbacks: dict[str, int]
    #: "docker" or "process".
    runner: str
    #: Seconds by task type.
    tau_before: dict[str, float]
    tau_after: dict[str, float]
    #: Node -> task type -> jobs.
    placements: dict[str, dict[str, int]]
    #: Node -> jobs, by wave, the first first.
    placements_by_wave: list[dict[str, int]]
    #: The epoch between the waves put other parameters in force.
    params_changed: bool
    #: What it changed, a line each.
    params_changes: list[str]
    #: Parameters before and after, as `ga_output.json` has them.
    params_before: dict[str, Any]
    params_after: dict[str, Any]
    #: The epoch's own report; empty: there was none.
    epoch: dict[str, Any]
    #: Node -> how many times as long work takes there as on the fastest, declared and learned.
    speeds: dict[str, NodeSpeed]
    waiting: Waiting
    #: From the first submission to the last end, s.
    duration_s: float
    #: The decision that `explained` shows: a task id and its record.
    explained: dict[str, Any]
    #: What failed the demo, in words; empty: nothing.
    problems: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def judge(
    evidence: Sequence[JobEvidence],
    *,
    runner: str,
    nodes: Sequence[str],
    tau_before: Mapping[str, float],
    tau_after: Mapping[str, float],
    duration_s: float,
    learned: Learned | None = None,
    paces: Mapping[str, float] | None = None,
) -> DemoReport:
    """Put the evidence together. The report's `problems` say whether the demo has passed."""
    placed = [job.decision for job in evidence if job.decision is not None and job.decision["candidates"]]
    fallbacks = Counter(str(record["fallback_reason"]) for record in placed if record["fallback_reason"])
    fallback_rate = fallbacks.total() / len(placed) if placed else 0.0
    waves = sorted({job.wave for job in evidence})
    return DemoReport(
        jobs=len(evidence),
        succeeded=sum(job.succeeded for job in evidence),
        failed=sum(not job.succeeded and not job.lost for job in evidence),
        lost=sum(job.lost for job in evidence),
        duplicated=sum(job.duplicated for job in evidence),
        sla_rate=_sla_rate(evidence),
        sla_rate_by_wave=[_sla_rate([job for job in evidence if job.wave == wave]) for wave in waves],
        fallback_rate=round(fallback_rate, 4),
        fallbacks=dict(fallbacks),
        runner=runner,
        tau_before={kind: round(seconds, 3) for kind, seconds in tau_before.items()},
        tau_after={kind: round(seconds, 3) for kind, seconds in tau_after.items()},
        placements=_placements(evidence, nodes),
        placements_by_wave=[_by_node([job for job in evidence if job.wave == wave], nodes) for wave in waves],
        params_changed=learned is not None and bool(learned.changes),
        params_changes=learned.changes if learned is not None else [],
        params_before=json.loads((learned.before if learned is not None else GAParams()).to_json()),
        params_after=json.loads((learned.after if learned is not None else GAParams()).to_json()),
        epoch=dict(learned.report) if learned is not None else {},
        speeds=node_speeds(paces or {}, learned.after if learned is not None else GAParams()),
        waiting=_waiting(evidence),
        duration_s=round(duration_s, 1),
        explained=_explained(evidence),
        problems=[*_problems(evidence, fallback_rate, len(placed)), *_epoch_problems(learned)],
    )


def _sla_rate(evidence: Sequence[JobEvidence]) -> float:
    if not evidence:
        return 0.0
    return round(sum(job.succeeded and job.trace.sla_success for job in evidence) / len(evidence), 4)


def _placements(evidence: Sequence[JobEvidence], nodes: Sequence[str]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {node: {} for node in nodes}
    for job in evidence:
        if job.trace.claims:
            of_node = counts.setdefault(job.trace.node, {})
            of_node[job.task_type] = of_node.get(job.task_type, 0) + 1
    return counts


def _by_node(evidence: Sequence[JobEvidence], nodes: Sequence[str]) -> dict[str, int]:
    counts = Counter(job.trace.node for job in evidence if job.trace.claims)
    return {node: counts[node] for node in sorted({*nodes, *counts}, key=lambda node: (node not in nodes, node))}


def _waiting(evidence: Sequence[JobEvidence]) -> Waiting:
    times = sorted(job.trace.waiting_s for job in evidence if job.trace.claims) or [0.0]
    p95 = times[min(len(times) - 1, round(0.95 * len(times)))]
    return Waiting(
        jobs_that_waited=sum(job.trace.waited for job in evidence),
        median_s=round(statistics.median(times), 3),
        p95_s=round(p95, 3),
        max_s=round(times[-1], 3),
    )


def _explained(evidence: Sequence[JobEvidence]) -> dict[str, Any]:
    """The decision with the most to tell: most candidates, then most refusals, then the longest wait."""

    def telling(job: JobEvidence) -> tuple[int, int, float]:
        record = job.decision or {}
        refused = sum(record.get("refusals", {}).values())
        return len(record.get("candidates", ())), refused, job.trace.waiting_s

    known = [job for job in evidence if job.decision is not None and job.trace.claims]
    if not known:
        return {}
    job = max(known, key=telling)
    return {
        "task_id": job.task_id,
        "task_type": job.task_type,
        "work": job.work,
        "node": job.trace.node,
        "waiting_s": round(job.trace.waiting_s, 3),
        "decision": dict(job.decision or {}),
    }


def _problems(evidence: Sequence[JobEvidence], fallback_rate: float, decisions: int) -> list[str]:
    problems = []
    for job in evidence:
        name = f"{job.key} ({job.work}, task {job.task_id})"
        if job.lost:
            seen = f"it began {job.starts} times and found its answer {job.ends} times"
            problems.append(f"lost: {name}: its result is {job.result}, {seen}")
        elif not job.succeeded:
            problems.append(f"failed: {name}: {job.problem or job.result}")
        if job.duplicated:
            seen = f"it began {job.starts} times and was claimed {job.trace.claims} times"
            problems.append(f"ran twice: {name}: {seen}")
        if job.trace.task_type not in ("", job.task_type):
            problems.append(f"type: {name}: {job.trace.task_type} in place of {job.task_type}")
    if not decisions:
        problems.append("decisions: no record of any placement was found, so the fallback rate is not known")
    if fallback_rate > FALLBACK_LIMIT:
        problems.append(f"fallback rate: {fallback_rate:.0%} of the decisions, allowed: {FALLBACK_LIMIT:.0%}")
    return problems


def _epoch_problems(learned: Learned | None) -> list[str]:
    if learned is None:
        return []
    if learned.missing:
        return [f"epoch: {learned.missing}"]
    if learned.report.get("outcome") in ("failed", "skipped"):
        return [f"epoch: {learned.report.get('reason')}"]
    return [f"epoch: {problem}" for problem in learned.report.get("problems", ())]
