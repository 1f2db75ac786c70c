"""Affinity and penalty: what the past says for a node and against it (spec section 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cloudai.history.records import WorkerStats
from cloudai.scheduling.parameters import AFFINITY_RANGE, PENALTY_RANGE, GAParams
from cloudai_beat.columns import TYPES, Columns
from cloudai_beat.contention import LEAST_OF_PAIR

EPS = 1e-9
#: Energy of a core-second, a GiB-second, a GPU-second.
ENERGY_CPU, ENERGY_MEMORY, ENERGY_GPU = 1.0, 0.1, 5.0


def affinities(columns: Columns, parameters: GAParams) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Affinity of every type to every node that ran enough of it, and the pairs with too few, shrunk.

    Always six rows. Affinity = a1 * speed + a2 * sla_ok - a3 * overload, within [-5, 5]; a pair with fewer than
    LEAST_OF_PAIR records stands between its own figure and the mean of its type, as far as its records go; a pair
    without any is left out. Also returns what was shrunk: "type on node (count)".
    """
    p = parameters
    tasks = columns.table(where=columns.counted)
    violations = columns.table(where=columns.violation)
    runs = columns.table(where=columns.success)
    runtime = np.where(columns.success, columns.runtime, 0.0)
    total = columns.table(runtime)
    mean_here = total / np.maximum(runs, 1)
    mean_of_type = total.sum(axis=1) / np.maximum(runs.sum(axis=1), 1)
    # A pair that never succeeded says nothing of its speed, and everything by its violations.
    speed = np.where(runs > 0, mean_of_type[:, None] / np.where(mean_here > 0, mean_here, 1.0), 1.0)
    sla_ok = 1.0 - violations / (tasks + EPS)
    busy = np.nan_to_num(columns.runtime)
    overload = columns.table(columns.overload) / (columns.table(busy) + EPS)
    raw = np.clip(p.a1 * speed + p.a2 * sla_ok - p.a3 * np.clip(overload, 0.0, 1.0), *AFFINITY_RANGE)
    table: dict[str, dict[str, float]] = {kind: {} for kind in TYPES}
    shrunk = []
    for row, kind in enumerate(TYPES):
        enough = tasks[row] >= LEAST_OF_PAIR
        mean = raw[row][enough].mean() if enough.any() else None
        for j, name in enumerate(columns.nodes):
            count = tasks[row, j]
            if enough[j]:
                table[kind][name] = float(raw[row, j])
            elif count > 0 and mean is not None:
                share = count / LEAST_OF_PAIR
                table[kind][name] = float(share * raw[row, j] + (1 - share) * mean)
                shrunk.append(f"{kind} on {name} ({count:.0f})")
    return table, shrunk


def penalties(workers: Sequence[WorkerStats], parameters: GAParams) -> tuple[dict[str, float], list[str]]:
    """Penalty of every node that ran enough: g1 * sla_fail_rate + g2 * overload_rate + g3 * energy_norm.

    Energy is relative to that of the same node fully used for the time that it was there. Also returns the nodes whose
    share of failures is drawn towards the fleet's, because they ran too little.
    """
    p = parameters
    run = sum(_sound(worker.tasks_run) for worker in workers)
    fleet_rate = sum(_sound(worker.sla_violations) for worker in workers) / (run + EPS)
    found: dict[str, float] = {}
    shrunk = []
    for worker in workers:
        tasks, violations = _sound(worker.tasks_run), _sound(worker.sla_violations)
        sla_fail_rate = min(1.0, violations / (tasks + EPS))
        if tasks < LEAST_OF_PAIR:
            share = tasks / LEAST_OF_PAIR
            sla_fail_rate = share * sla_fail_rate + (1 - share) * fleet_rate
            shrunk.append(f"{worker.worker_id} ({tasks:.0f})")
        present = _sound(worker.total_time)
        overload_rate = min(1.0, _sound(worker.overload_time) / (present + EPS)) if present else 0.0
        used = _energy(worker.cpu_used_total, worker.mem_used_total, worker.gpu_used_total)
        full = _energy(worker.cpu, worker.memory, worker.gpu) * present
        energy_norm = min(1.0, used / full) if full > 0 else 0.0
        penalty = p.g1 * sla_fail_rate + p.g2 * overload_rate + p.g3 * energy_norm
        found[worker.worker_id] = float(np.clip(penalty, *PENALTY_RANGE))
    return found, shrunk


def with_all_rows(
    table: Mapping[str, Mapping[str, float]], in_force: Mapping[str, Mapping[str, float]], nodes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Six rows: pairs that are not in `table` keep what is in force; a type of which nothing is known is 0 on all."""
    rows = {}
    for kind in TYPES:
        kept = {name: value for name, value in in_force.get(kind, {}).items() if name in nodes}
        row = kept | dict(table.get(kind, {}))
        rows[kind] = row or dict.fromkeys(nodes, 0.0)
    return rows


def _energy(cpu: float, memory: float, gpu: float) -> float:
    return ENERGY_CPU * _sound(cpu) + ENERGY_MEMORY * _sound(memory) + ENERGY_GPU * _sound(gpu)


def _sound(value: float) -> float:
    return float(value) if np.isfinite(value) and value > 0 else 0.0
