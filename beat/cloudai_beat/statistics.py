"""What an epoch learns from the history without any search: theta, base, speed, affinity, penalty (spec section 7).

Pure: records in, parameters and a plain account out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cloudai.history.records import TaskHistory, WorkerStats
from cloudai.scheduling.parameters import GAParams
from cloudai_beat.columns import TYPES, columns_of
from cloudai_beat.contention import LEAST_OF_PAIR, LEAST_RECORDS, ThetaFit, base_factors, fit_theta, stretch
from cloudai_beat.merits import affinities, penalties, with_all_rows
from cloudai_beat.speeds import fit_speeds

#: Digits of what is published: more would change with every record.
_DIGITS = 4
#: Names in one line of the account.
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Refreshed:
    """Parameters with the statistics of a window, and what was done to get them."""

    #: The genes in force (theta aside) with the statistics; those in force where there is too little data.
    parameters: GAParams
    #: Type -> completions that it learned from.
    samples: Mapping[str, int]
    theta: ThetaFit
    #: What was kept or drawn towards something, and why, a line each.
    kept: tuple[str, ...]
    #: Records, or parts of them, that could not be used: how many, by reason.
    skipped: Mapping[str, int] = field(default_factory=dict)
    #: There was enough data to learn from.
    enough: bool = True


def refresh(
    history: Sequence[TaskHistory],
    workers: Sequence[WorkerStats],
    in_force: GAParams,
    *,
    theta_prior: Sequence[float] | None = None,
    theta_factor: float = 1.0,
    present: Collection[str] = (),
) -> Refreshed:
    """Learn from a window.

    Args:
        history: attempts of the window, in any order.
        workers: its nodes.
        in_force: what is kept where the window says nothing.
        theta_prior: what theta is drawn towards; None: the one in force.
        theta_factor: what a search has scaled theta by, in [0.5, 2].
        present: names of nodes that are in the fleet, should the window not know them.

    """
    columns = columns_of(history)
    in_force_theta = (in_force.theta1, in_force.theta2, in_force.theta3, in_force.theta4)
    samples = columns.successes_by_type
    total = sum(samples.values())
    if total < LEAST_RECORDS:
        why = f"everything: {total} completions in the window, {LEAST_RECORDS} are needed"
        unfitted = ThetaFit((*in_force_theta,), 0, 0, 0.0, kept=why)
        return Refreshed(in_force, samples, unfitted, (why,), columns.skipped, enough=False)
    nodes = sorted({*columns.nodes, *(worker.worker_id for worker in workers), *present})
    theta = fit_theta(columns, theta_prior if theta_prior is not None else in_force_theta)
    weights = tuple(theta_factor * value for value in theta.theta) if not theta.kept else in_force_theta
    speeds = fit_speeds(columns, stretch(columns, weights))
    base = base_factors(columns, weights)
    affinity, shrunk_pairs = affinities(columns, in_force)
    penalty, shrunk_nodes = penalties(workers, in_force)
    kept = [
        *([f"theta: {theta.kept}"] if theta.kept else []),
        *_poor_types(samples),
        *_line("speed of nodes without any completion", speeds.unknown),
        *_line("affinity of pairs with too few tasks, drawn towards their type's mean", shrunk_pairs),
        *_line("penalty of nodes with too few tasks, drawn towards the fleet's share of misses", shrunk_nodes),
        *_line("nodes that are gone, left out", sorted(_named_in(in_force) - set(nodes))),
    ]
    parameters = replace(
        in_force,
        theta1=_rounded(weights[0]),
        theta2=_rounded(weights[1]),
        theta3=_rounded(weights[2]),
        theta4=_rounded(weights[3]),
        base=_rounded_row({**in_force.base, **base}),
        speed={
            kind: _rounded_row(_of(nodes, in_force.speed.get(kind, {})) | speeds.factors[kind]) for kind in TYPES
        },
        affinity={
            kind: _rounded_row(row) for kind, row in with_all_rows(affinity, in_force.affinity, nodes).items()
        },
        penalty=_rounded_row(_of(nodes, in_force.penalty) | penalty),
    )
    return Refreshed(parameters, samples, theta, tuple(kept), columns.skipped)


def _poor_types(samples: Mapping[str, int]) -> list[str]:
    poor = [f"{kind} ({count})" for kind, count in samples.items() if count < LEAST_OF_PAIR]
    return _line(f"types with fewer than {LEAST_OF_PAIR} completions, kept", poor)


def _line(what: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return [f"{what}: {', '.join(names[:_NAMES_SHOWN])}{more}"]


def _named_in(parameters: GAParams) -> set[str]:
    tables = (*parameters.affinity.values(), *parameters.speed.values())
    return {name for row in tables for name in row} | set(parameters.penalty)


def _of(nodes: Collection[str], row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name in nodes}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded_row(row: Mapping[str, float]) -> dict[str, float]:
    return {name: _rounded(value) for name, value in row.items()}
