"""Where tasks go and when, on a running fleet: constraints, targets, drain, late binding, backfill, schedulers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cloudai.errors import InvalidRequest
from cloudai.scheduling.decision import read_record
from cloudai.scheduling.parameters import GAParams

from ...waiting import until
from ..celery.cluster import Cluster, lines

#: How long a task waits before a node is held for it, seconds.
STARVING_S = 1.0


@pytest.fixture(scope="module")
def bare_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(
        tmp_path_factory.mktemp("fleet"),
        {"scheduling": {"starvation_after_s": STARVING_S, "params_reload_interval_s": 0.2}},
    )
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def cluster(bare_cluster: Cluster) -> Cluster:
    first = bare_cluster.start("small", cpu=1, memory="1GiB", labels={"zone": "a"}, wait=False)
    bare_cluster.start("large", cpu=2, memory="4GiB", slots=4, labels={"zone": "b"})
    bare_cluster.wait_joined(first)
    return bare_cluster


@pytest.fixture(autouse=True)
def _quiet(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.quiet()


@pytest.fixture
def full(cluster: Cluster, witness: Path, gate: Path) -> Iterator[list[Any]]:
    """Every core is taken until the gate is opened."""
    held = [cluster["hold"].delay(str(witness), str(gate)) for _ in range(3)]
    until(lambda: len(lines(witness)) == 3)
    yield held
    gate.touch()
    for one in held:
        one.get(timeout=60)


def test_constraints_are_kept(cluster: Cluster) -> None:
    for zone, node in (("a", "small@t"), ("b", "large@t")):
        results = [cluster["add"].apply_async((1, 1), constraints={"zone": zone}) for _ in range(3)]
        assert [r.get(timeout=60) for r in results] == [2, 2, 2]
        assert {cluster.deployment.ledger.entry(r.id)["node"] for r in results} == {node}


def test_a_constraint_that_no_node_meets_waits(cluster: Cluster) -> None:
    result = cluster["add"].apply_async((1, 1), constraints={"zone": "z"})
    assert cluster.state(result.id) == "waiting"
    result.revoke()


def test_a_target_is_kept_and_a_drained_one_waits(cluster: Cluster) -> None:
    assert cluster["add"].apply_async((1, 1), target_worker_id="small@t").get(timeout=60) == 2
    cluster.deployment.fleet.drain("small@t")
    result = cluster["add"].apply_async((1, 1), target_worker_id="small@t")
    assert cluster.state(result.id) == "waiting"
    record = read_record(cluster.deployment.ledger.decision(result.id) or "")
    assert record["outcome"] == "wait"
    assert record["refusals"]
    cluster.deployment.fleet.undrain("small@t")
    assert result.get(timeout=60) == 2
    assert cluster.until_state(result.id, "succeeded")["node"] == "small@t"


def test_more_tasks_than_room_run_in_deadline_order(
    cluster: Cluster, full: list[Any], witness: Path, gate: Path
) -> None:
    # One core of one node, so that the order is to be seen.
    order = [3, 1, 4, 2, 5]
    results = [
        cluster["mark"].apply_async(
            (str(witness), f"deadline {hours}"), deadline=timedelta(hours=hours), target_worker_id="small@t"
        )
        for hours in order
    ]
    assert {cluster.state(r.id) for r in results} == {"waiting"}
    gate.touch()
    for one in results:
        one.get(timeout=60)
    assert [line for line in lines(witness) if line.startswith("deadline")] == [f"deadline {h}" for h in sorted(order)]


def test_small_tasks_pass_a_large_one_that_starts_in_the_end(cluster: Cluster, witness: Path, tmp_path: Path) -> None:
    gates = [tmp_path / f"gate{i}" for i in range(8)]
    pinned: dict[str, Any] = {"constraints": {"zone": "b"}}

    def small(i: int) -> Any:
        return cluster["hold"].apply_async((str(witness), str(gates[i])), deadline=timedelta(hours=2), **pinned)

    running = [small(0), small(1)]
    until(lambda: len(lines(witness)) == 2)
    large = cluster["mark"].apply_async(
        (str(witness), "large"), resources={"cpu": 2}, deadline=timedelta(hours=1), **pinned
    )
    running.append(small(2))
    assert cluster.state(large.id) == "waiting"
    gates[0].touch()
    # The core that is free does not suffice for the large one, though its deadline comes first: a small one has it.
    until(lambda: len(lines(witness)) == 3)
    assert cluster.state(large.id) == "waiting"
    until(lambda: cluster.deployment.fleet.entry("large@t")["held_for"] == large.id, "the node is held for it")
    running.append(small(3))
    gates[1].touch()
    running[1].get(timeout=60)
    assert cluster.state(running[3].id) == "waiting"
    gates[2].touch()
    assert large.get(timeout=60) == "large"
    gates[3].touch()
    for one in running:
        one.get(timeout=60)
    assert lines(witness).index("large") == 3


def test_parameters_are_reloaded_by_a_running_process(cluster: Cluster) -> None:
    view = cluster.deployment.view
    before = view.parameters.version
    changed = json.loads(GAParams().to_json())
    changed["affinity"] = {"cpu-light": {"small@t": -5.0, "large@t": 5.0}}
    cluster.deployment.parameters.publish(GAParams.from_json(json.dumps(changed)), "test")

    def reloaded() -> bool:
        view.refresh()
        return view.parameters.version > before

    until(reloaded)
    results = [cluster["add"].apply_async((1, 1), resources={"cpu": 0.5}) for _ in range(2)]
    assert [r.get(timeout=60) for r in results] == [2, 2]
    assert {cluster.deployment.ledger.entry(r.id)["node"] for r in results} == {"large@t"}
    cluster.deployment.parameters.publish(GAParams(), "test")


def fallbacks(cluster: Cluster) -> dict[str, int]:
    return {k: v for k, v in cluster.deployment.ledger.totals().items() if k.startswith("fallback:")}


def scheduler_of(cluster: Cluster, task_id: str) -> str:
    return str(read_record(cluster.deployment.ledger.decision(task_id) or "")["scheduler"])


@pytest.mark.parametrize(
    ("scheduling", "scheduler"),
    [
        ({}, "rts"),
        ({"rts_enabled": False}, "round-robin"),
        ({"rollout_percent": 0}, "round-robin"),
        ({"scheduler": "round-robin"}, "round-robin"),
        ({"scheduler": "user_schedulers:Last"}, "last"),
    ],
)
def test_which_scheduler_decides(
    cluster: Cluster, scheduling: dict[str, Any], scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    before = fallbacks(cluster)
    app = cluster.new_app({"scheduling": scheduling})
    result = app.tasks["jobs.add"].delay(1, 1)
    assert result.get(timeout=60) == 2
    assert scheduler_of(cluster, result.id) == scheduler
    assert fallbacks(cluster) == before


def test_a_rollout_is_stable_by_task_id(cluster: Cluster) -> None:
    seen: dict[str, set[str]] = {}
    for _ in range(2):
        app = cluster.new_app({"scheduling": {"rollout_percent": 50}})
        for i in range(8):
            task_id = f"rollout-{i}"
            app.tasks["jobs.add"].apply_async((1, 1), task_id=task_id).get(timeout=60)
            cluster.until_state(task_id, "succeeded")
            seen.setdefault(task_id, set()).add(scheduler_of(cluster, task_id))
            app.AsyncResult(task_id).forget()
    assert all(len(schedulers) == 1 for schedulers in seen.values())
    assert set().union(*seen.values()) == {"rts", "round-robin"}


def test_a_broken_scheduler_falls_back_and_is_counted(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    before = fallbacks(cluster).get("fallback:internal_error", 0)
    app = cluster.new_app({"scheduling": {"scheduler": "user_schedulers:Broken"}})
    result = app.tasks["jobs.add"].delay(1, 1)
    assert result.get(timeout=60) == 2
    assert scheduler_of(cluster, result.id) == "round-robin"
    assert fallbacks(cluster)["fallback:internal_error"] == before + 1


def test_a_scheduler_that_is_none_is_refused(cluster: Cluster) -> None:
    app = cluster.new_app({"scheduling": {"scheduler": "user_schedulers_that_are_not:There"}})
    before = cluster.written()
    with pytest.raises(InvalidRequest, match="scheduler"):
        app.tasks["jobs.add"].delay(1, 1)
    assert cluster.written() == before
