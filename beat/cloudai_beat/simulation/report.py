"""A study for people: the table, and the sentence that says whether it would have helped."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from cloudai.cli.output import duration, number
from cloudai_beat.simulation.metrics import METRICS, Spread
from cloudai_beat.simulation.study import CLAIRVOYANT, RTS, TUNED, Study

_SHARES = frozenset({"miss_rate", "avoidable_miss_rate", "utilisation"})
_TIMES = frozenset({"latency_mean_s", "latency_p95_s"})

#: Of these only one figure is shown: a spread of them tells little.
_PLAIN = frozenset({"placements_per_s"})

#: Policies that are ours, or that know what nobody can know.
_NOT_RIVALS = frozenset({RTS, TUNED, CLAIRVOYANT})

_YES = "yes"

#: Fewer jobs than this say little.
_FEW_JOBS = 100


#: The tables that are shown, each narrow enough for a terminal: what the jobs saw, and what it took.
TABLES = (
    ("miss_rate", "avoidable_miss_rate", "latency_mean_s", "latency_p95_s"),
    ("slowdown_gmean", "utilisation", "throughput_per_min", "energy", "placements_per_s"),
)


def columns(metrics: Sequence[str]) -> list[str]:
    """Titles, as `print_table` takes them."""
    return ["*policy", *(f">*{METRICS[metric][0]}" for metric in metrics)]


def rows(study: Study, metrics: Sequence[str]) -> list[list[str | Text]]:
    """A row for each policy; the best of a column is bold, `clairvoyant` aside."""
    best = {metric: _best(study, metric) for metric in metrics}
    return [
        [
            policy,
            *(
                Text(_cell(metric, study.spread(policy, metric)), style="bold" if policy == best[metric] else "")
                for metric in metrics
            ),
        ]
        for policy in study.policies
    ]


def about(study: Study) -> str:
    """One line: what was replayed on what."""
    first = study.repetitions[0].scenario
    seeds = len(study.repetitions)
    text = f"{study.trace.source}: {len(first)} jobs"
    if study.earlier_share:
        text += f" (the later part; rts-tuned was evolved on the first {study.earlier_share:.0%})"
    if study.trace.left_out:
        text += f", {study.trace.left_out} rows left out that never ran"
    fleet = "nodes by hand" if study.setting.fleet is not None else "drawn nodes"
    return (
        f"{text}; {len(first.fleet)} {fleet}; offered load {study.setting.load:g}; "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
    )


def answer(study: Study) -> str:
    """Would this have helped me? One sentence."""
    ours = TUNED if TUNED in study.policies else RTS
    rivals = [policy for policy in study.policies if policy not in _NOT_RIVALS]
    if ours not in study.policies or not rivals:
        return ""
    own = study.spread(ours, "miss_rate").mean
    rival = min(rivals, key=lambda policy: study.spread(policy, "miss_rate").mean)
    against = [policy for policy in ("round-robin", rival) if policy in rivals]
    parts = [_compared(study, ours, policy) for policy in dict.fromkeys(against)]
    verdict = _verdict(study, ours, against)
    text = f"Would this have helped? {verdict}: {ours} misses {_percent(own)} of the deadlines, {' and '.join(parts)}"
    if CLAIRVOYANT in study.policies:
        text += f"; with run times and speeds known beforehand {_percent(study.spread(CLAIRVOYANT, 'miss_rate').mean)}"
    text += "."
    jobs = len(study.repetitions[0].scenario)
    if jobs < _FEW_JOBS:
        text += f" {jobs} jobs are few: another log of the same work may say otherwise."
    return text


def _compared(study: Study, ours: str, policy: str) -> str:
    own, theirs = study.spread(ours, "miss_rate").mean, study.spread(policy, "miss_rate").mean
    text = f"{policy} {_percent(theirs)}"
    if own > 0 and theirs / own >= 1.2:
        text += f" ({theirs / own:.1f} times as many)"
    return text


def _verdict(study: Study, ours: str, against: Sequence[str]) -> str:
    """Whether ours misses less than Round-Robin and than the best other policy: one word if it is the same."""
    found = {policy: _beats(study, ours, policy) for policy in dict.fromkeys(against)}
    if set(found.values()) == {_YES}:
        return "Yes"
    return ", ".join(f"{word} against {policy}" for policy, word in found.items()).capitalize()


def _beats(study: Study, ours: str, rival: str) -> str:
    """Whether ours misses less in every repetition, in none, or in some."""
    pairs = list(zip(study.values(ours, "miss_rate"), study.values(rival, "miss_rate"), strict=True))
    if all(own < theirs for own, theirs in pairs):
        return _YES
    if all(own > theirs for own, theirs in pairs):
        return "no (it misses more)"
    if all(own == theirs for own, theirs in pairs):
        return "no difference"
    return "no clear difference (the seeds disagree)"


def _best(study: Study, metric: str) -> str:
    _, lower, _ = METRICS[metric]
    candidates = [policy for policy in study.policies if policy != CLAIRVOYANT] or list(study.policies)
    sign = 1 if lower else -1
    return min(candidates, key=lambda policy: sign * study.spread(policy, metric).mean)


def _cell(metric: str, spread: Spread) -> str:
    if metric in _SHARES:
        return f"{spread.mean * 100:.1f} ±{spread.sd * 100:.1f}"
    if metric in _TIMES:
        return f"{duration(spread.mean)} ±{duration(spread.sd)}"
    return number(spread.mean) if metric in _PLAIN else f"{number(spread.mean)} ±{number(spread.sd, 2)}"


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
