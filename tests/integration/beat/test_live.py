"""A small cluster under a mixed load: epochs come on schedule, parameters change, and placements follow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudai.app import CloudAI
from cloudai.demo.learning import PACE
from cloudai.local_cluster import LocalCluster
from cloudai.local_nodes import LocalNode
from cloudai.local_services import LocalServices
from cloudai.names import CONTAINER_TASK
from cloudai.scheduling.decision import read_record

from ..celery.cluster import close

#: The slow one is named first, so that it wins where nothing else tells.
SLOW = LocalNode("a-slow", cpu=4, memory=8, slots=4, environment={PACE: "0.6"})
FAST = LocalNode("b-fast", cpu=4, memory=8, slots=4, environment={PACE: "0.1"})
TYPES = ("cpu-light", "mixed", "cpu-heavy")
#: Enough to learn from, and too few for a search, whose engine may have to be compiled first.
FEW = 90


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    overrides: dict[str, dict[str, Any]] = {
        "scheduling": {"params_reload_interval_s": 0.3, "explore_percent": 0},
        "optimiser": {"epoch_interval_s": 2},
        "node": {"secrets_allowlist": [f"env:{PACE}"]},
    }
    folder = tmp_path_factory.mktemp("live")
    services = LocalServices(control=True)
    with LocalCluster(folder, (SLOW, FAST), runner="process", overrides=overrides, services=services) as running:
        yield running


def submit(app: CloudAI, task_type: str, **options: Any) -> Any:
    kwargs = {"image": "any", "command": ["sh", "-c", 'sleep "$PACE"'], "secrets": {"PACE": f"env:{PACE}"}}
    return app.tasks[CONTAINER_TASK].apply_async(
        kwargs=kwargs, task_type=task_type, resources={"cpu": 0.5, "memory": "64MiB"}, **options
    )


def test_parameters_are_learned_from_live_work_and_take_effect(cluster: LocalCluster) -> None:
    app = CloudAI("live", settings=cluster.settings, set_as_current=False)
    deployment = app.deployment
    begins_at = time.monotonic()
    jobs: list[Any] = []

    def learned() -> bool:
        published = deployment.parameters.read()
        speed = {} if published is None else published.parameters.speed.get("mixed", {})
        return {SLOW.full_name, FAST.full_name} <= speed.keys()

    while not learned():
        assert time.monotonic() < begins_at + 100, logs(cluster)
        assert not cluster.ended(), cluster.ended()
        if len(jobs) >= FEW:
            time.sleep(0.1)
            continue
        # A load of several types goes on meanwhile, and each node gets its part of it.
        for task_type in TYPES:
            jobs += [submit(app, task_type, target_worker_id=node.full_name) for node in (SLOW, FAST)]
        for job in jobs[-2 * len(TYPES) :]:
            job.get(timeout=60)
    in_force = deployment.parameters.read().parameters
    assert in_force.speed["mixed"][SLOW.full_name] > 2 * in_force.speed["mixed"][FAST.full_name]
    assert all(row[FAST.full_name] > row[SLOW.full_name] for kind, row in in_force.affinity.items() if kind in TYPES)
    # Nobody was restarted: this process decides by what was learned, and so the work goes to the fast node.
    deadline = time.monotonic() + 60
    while True:
        job = submit(app, "mixed")
        job.get(timeout=60)
        decision = read_record(deployment.ledger.decision(job.id))
        if decision["parameters_version"] >= in_force.version:
            break
        assert time.monotonic() < deadline, decision
    assert decision["candidates"][0]["node"] == FAST.full_name
    reports = deployment.epochs.latest()
    assert {report["trigger"] for report in reports} == {"beat"}
    assert any(report["outcome"] == "published" for report in reports)
    close(app)


def logs(cluster: LocalCluster) -> str:
    folder: Path = cluster.folder / "logs"
    return "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("*.log")))
