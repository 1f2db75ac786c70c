"""The outcome of one placement decision, filled while deciding, and its compact record (spec section 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from cloudai.scheduling.policies import GuardState

Features = tuple[float, float, float, float]

FEATURE_NAMES = ("cpu_ratio", "memory_ratio", "gpu_ratio", "load")

#: Version of the record's form.
_FORM = 1
_FEATURES = "[%.5g,%.5g,%.5g,%.5g]"
#: A list of k numbers, by k.
_LISTS = ["[" + ",".join(["%.6g"] * length) + "]" for length in range(6)]


class Outcome(StrEnum):
    """What becomes of the task."""

    #: there are candidates
    PLACE = "place"
    #: no node can take it now
    WAIT = "wait"
    #: no node could ever hold it
    NEVER = "never"


@dataclass(frozen=True)
class Decision:
    """Where a task should go and why. The sequences run alongside `candidates`."""

    task_id: str
    outcome: Outcome
    #: epoch s
    decided_at: float
    #: expected runtime that was used, s
    tau: float
    #: deadline minus the moment of the decision, s
    slack_s: float
    snapshot_version: int
    #: 0: none
    parameters_version: int
    #: nodes by the first reason that refused them
    refusals: Mapping[str, int]
    #: name of the scheduler that ranked; "": nothing was ranked
    scheduler: str = ""
    #: why Round-Robin decided in its place; "": it did not
    fallback_reason: str = ""
    #: the error behind an internal_error
    fallback_detail: str = ""
    #: the guard's new state when this decision changed it; the caller logs it
    guard_event: GuardState | None = None
    #: what no node has, in words, when the outcome is NEVER
    why_never: str = ""
    #: names of nodes, best first, at most 5
    candidates: Sequence[str] = ()
    #: [cpu ratio, memory ratio, gpu ratio, load] at this moment
    features: Sequence[Features] = ()
    #: predicted runtime E, s
    runtimes: Sequence[float] = ()
    #: empty: the scheduler does not score
    scores: Sequence[float] = ()
    #: terms of the scores by name
    terms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    #: the first candidate is tried for what can be learned there; it may not have the lowest risk
    exploratory: bool = False

    @property
    def predicted_s(self) -> float | None:
        """Predicted runtime on the best node, s; None without one."""
        return self.runtimes[0] if self.runtimes else None

    def candidate_features(self) -> list[tuple[str, str]]:
        """Each candidate's name and its four features as a JSON list (null: not known), best first."""
        return list(zip(self.candidates, self._feature_lists, strict=True))

    def to_record(self) -> str:
        """Compact JSON, rounded to 5 or 6 digits, that `read_record` expands."""
        parts = [
            f'{{"v":{_FORM},"o":"{self.outcome.value}","at":{self.decided_at:.3f},"tau":{self.tau:.6g}'
            f',"sl":{self.slack_s:.6g},"fv":{self.snapshot_version},"pv":{self.parameters_version}'
        ]
        if self.candidates:
            terms = ",".join([f"{quoted(name)}:{_numbers(values)}" for name, values in self.terms.items()])
            parts.append(
                f',"by":{quoted(self.scheduler)},"n":[{",".join(map(quoted, self.candidates))}]'
                f',"f":[{",".join(self._feature_lists)}],"e":{_numbers(self.runtimes)},"t":{{{terms}}}'
            )
            if self.scores:
                parts.append(f',"s":{_numbers(self.scores)}')
        if self.exploratory:
            parts.append(',"x":1')
        if self.refusals:
            counts = ",".join([f"{quoted(reason)}:{number}" for reason, number in self.refusals.items()])
            parts.append(f',"r":{{{counts}}}')
        if self.fallback_reason:
            parts.append(f',"fb":{quoted(self.fallback_reason)}')
            if self.fallback_detail:
                parts.append(f',"why":{quoted(self.fallback_detail)}')
        if self.why_never:
            parts.append(f',"never":{quoted(self.why_never)}')
        parts.append("}")
        return "".join(parts)

    @cached_property
    def _feature_lists(self) -> list[str]:
        return [_valid(_FEATURES % values) for values in self.features]


def read_record(text: str | bytes) -> dict[str, Any]:
    """Expand `to_record` with full names; each candidate has node, features, predicted_s, score and terms.

    For RTS, base_risk is R = Rfinal + affinity - penalty (spec section 5). Raises ValueError on other text.
    """
    record = json.loads(text)
    if not isinstance(record, dict) or record.get("v") != _FORM:
        raise ValueError(f"not a decision record of form {_FORM}")
    nodes = record.get("n", [])
    runtimes = _expanded(record.get("e", 0), len(nodes))
    scores = _expanded(record["s"], len(nodes)) if "s" in record else []
    terms = {name: _expanded(values, len(nodes)) for name, values in record.get("t", {}).items()}
    candidates = []
    for place, node in enumerate(nodes):
        candidate: dict[str, Any] = {"node": node}
        candidate |= zip(FEATURE_NAMES, record["f"][place], strict=True)
        candidate["predicted_s"] = runtimes[place]
        if scores:
            candidate["score"] = scores[place]
        candidate |= {name: values[place] for name, values in terms.items()}
        if scores and {"affinity", "penalty"} <= terms.keys():
            candidate["base_risk"] = scores[place] + candidate["affinity"] - candidate["penalty"]
        candidates.append(candidate)
    return {
        "outcome": record["o"],
        "decided_at": record["at"],
        "tau_s": record["tau"],
        "slack_s": record["sl"],
        "snapshot_version": record["fv"],
        "parameters_version": record["pv"],
        "scheduler": record.get("by", ""),
        "exploratory": bool(record.get("x", 0)),
        "fallback_reason": record.get("fb", ""),
        "fallback_detail": record.get("why", ""),
        "why_never": record.get("never", ""),
        "refusals": record.get("r", {}),
        "candidates": candidates,
    }


def _numbers(values: Sequence[float]) -> str:
    """A JSON list; 0 stands for a list of zeros, which most terms are."""
    if not any(values):
        return "0"
    return _valid(_LISTS[len(values)] % tuple(values))


def _expanded(values: Any, length: int) -> list[float | None]:
    return [0.0] * length if values == 0 else list(values)


def _valid(numbers: str) -> str:
    """JSON knows neither NaN nor infinity."""
    if "n" in numbers:
        return numbers.replace("-inf", "null").replace("inf", "null").replace("nan", "null")
    return numbers
