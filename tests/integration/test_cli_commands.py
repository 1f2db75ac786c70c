"""The commands against a real cluster: an embedded Valkey and two nodes that run jobs as local processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cloudai import CloudAI
from cloudai.cli import cloudai
from cloudai.local_cluster import LocalCluster
from cloudai.local_nodes import LocalNode

from ..waiting import until

# Celery's result backend calls it; redis-py warns of it since 8.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

NODES = (
    LocalNode("big", cpu=4, memory=8, gpus=1, slots=4, labels={"zone": "a"}),
    LocalNode("small", cpu=1, memory=2, slots=2, labels={"zone": "b"}),
)
MAIN = ("-c", "from cloudai.cli import main; main()")
CELERY = ("-m", "celery", "-A", "cloudai", "cloudai")

#: The process runner wants an image, though it does not use it.
IMAGE = "busybox"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    overrides = {"node": {"heartbeat_interval_s": 0.5}}
    folder = tmp_path_factory.mktemp("cluster")
    with LocalCluster(folder, NODES, runner="process", overrides=overrides) as running:
        yield running


@pytest.fixture(scope="module")
def app(cluster: LocalCluster) -> Iterator[CloudAI]:
    """An application as Celery's own program hands it to the commands."""
    app = CloudAI("commands", settings=cluster.settings, set_as_current=False)
    yield app
    app.deployment.client.close()
    app.close()


@pytest.fixture
def run(app: CloudAI) -> Callable[..., Result]:
    """A command, run in this process for speed; two tests below run the real programs."""

    def run(*args: str) -> Result:
        return CliRunner(env={"COLUMNS": "100"}).invoke(cloudai, args, obj=SimpleNamespace(app=app))

    return run


@pytest.fixture
def ask(run: Callable[..., Result]) -> Callable[..., Any]:
    """A command with `--json`: its one value."""

    def ask(name: str, *args: str) -> Any:
        done = run(*name.split(), "--json", *args)
        assert done.stdout, done.output
        return json.loads(done.stdout)

    return ask


def start(cluster: LocalCluster, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, as a user starts it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDAI_")}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**clean, "CLOUDAI_REDIS__URL": cluster.url, "COLUMNS": "100"},
    )


def test_a_job_is_submitted_waited_for_and_explained(run: Any, ask: Any) -> None:
    done = run(
        *("submit", "--cpu", "2", "--memory", "64MiB", "--env", "TOKEN=hunter2", "--label", "zone=a"),
        *(
            "--user",
            "ann",
            "--deadline",
            "10m",
            "--wait",
            "--json",
            IMAGE,
            "--",
            "sh",
            "-c",
            "echo hello; exit 3",
        ),
    )
    report = json.loads(done.stdout)
    assert done.exit_code == report["exit_code"] == 3
    assert report["state"] == "failed"
    assert report["result"]["stdout_tail"] == "hello\n"
    task_id = report["task_id"]

    until(lambda: ask("explain", task_id)["state"] == "failed")
    explained = ask("explain", task_id)
    assert explained["node"] == report["node"] == "big@local"
    assert explained["sla_success"] is False
    assert [step["event"] for step in explained["history"]] == ["submitted", "placed", "claimed", "finished"]
    assert explained["history_complete"] is True
    decision = explained["decision"]
    assert [candidate["node"] for candidate in decision["candidates"]] == ["big@local"]
    assert {"score", "lateness", "affinity", "penalty", "load", "predicted_s"} <= decision["candidates"][
        0
    ].keys()
    # The small one is refused by its label first.
    assert decision["refusals"] == {"constraint": 1}
    assert explained["result"]["error"].startswith("ContainerFailed")

    shown = run("explain", task_id).stdout
    assert "-> " in shown
    assert "constraint (1 node)" in shown
    assert "user" in shown
    for text in (shown, json.dumps(explained), run("status").stdout, json.dumps(ask("status"))):
        assert "hunter2" not in text


def test_a_task_that_waits_says_why_and_is_cancelled(run: Any, ask: Any) -> None:
    report = ask("submit", "--cpu", "64", IMAGE, "--", "true")
    assert report["state"] == "waiting"
    assert "no node can ever hold cpu 64" in report["waits_because"]
    task_id = report["task_id"]
    pending = ask("pending")
    assert task_id in [task["task_id"] for task in pending["tasks"]]
    why = ask("explain", task_id)["waits_because"]
    assert why["kind"] == "never"
    needs = {node["node"]: node["refused"][0] for node in why["nodes"]}
    assert needs["big@local"] == {"reason": "cpu", "needs": "64 cores", "has": "4 cores"}
    assert "recomputed now" in run("explain", task_id).stdout
    assert ask("cancel", task_id)["tasks"][0]["state"] == "cancelled"
    assert ask("explain", task_id)["state"] == "cancelled"
    assert task_id not in [task["task_id"] for task in ask("pending")["tasks"]]


def test_refusals_name_field_value_and_what_is_allowed(run: Any, ask: Any) -> None:
    before = ask("status")["tasks"]
    for args, field in (
        (("--cpu", "-1"), "cpu"),
        (("--memory", "much"), "memory"),
        (("--type", "huge"), "task_type"),
        (("--deadline", "yesterday"), "deadline"),
        (("--node", "nowhere"), "node"),
        (("--env", "NAME"), "env"),
        (("--timeout", "0"), "timeout"),
    ):
        done = run("submit", *args, "--json", IMAGE, "--", "true")
        assert done.exit_code == 2
        error = json.loads(done.stdout)["error"]
        assert error.startswith(f"{field}: ")
        assert "allowed: " in error
    rejected = run("submit", "--cpu", "64", "--unplaceable", "reject", IMAGE, "--", "true")
    assert rejected.exit_code == 1
    assert "big@local" in rejected.stderr
    assert ask("status")["tasks"] == before


def test_the_output_of_a_running_job_is_followed_and_kept(run: Any, ask: Any, cluster: LocalCluster) -> None:
    script = "echo first; while [ ! -e gate ]; do sleep 0.1; done; echo last"
    report = ask(
        "submit",
        "--cpu",
        "1",
        "--timeout",
        "1m",
        IMAGE,
        "--",
        "sh",
        "-c",
        script.replace("gate", gate(cluster)),
    )
    task_id = report["task_id"]

    def has_written() -> bool:
        done = run("logs", task_id)
        return done.exit_code == 0 and done.stdout == "first\n"

    until(has_written)
    Path(gate(cluster)).touch()
    assert run("logs", "--follow", task_id).stdout == "first\nlast\n"
    assert ask("logs", task_id) == {"task_id": task_id, "output": "first\nlast\n"}


def gate(cluster: LocalCluster) -> str:
    return str(cluster.folder / "gate")


def test_follow_shows_the_output_of_a_new_job_and_its_exit_code(run: Any) -> None:
    done = run("submit", "--follow", IMAGE, "--", "sh", "-c", "echo one; sleep 1; echo two; exit 4")
    assert done.exit_code == 4
    assert done.stdout.endswith("one\ntwo\n")


def test_a_job_without_output_or_id_is_told(run: Any, ask: Any) -> None:
    task_id = ask("submit", "--cpu", "64", IMAGE, "--", "true")["task_id"]
    done = run("logs", task_id)
    assert done.exit_code == 1
    assert "--follow" in done.stderr
    ask("cancel", task_id)
    assert run("logs", task_id).exit_code == 1
    for command in ("logs", "explain"):
        done = run(command, "no-such-task")
        assert done.exit_code == 2
        assert "no-such-task" in done.stderr


def test_a_running_job_is_stopped(run: Any, ask: Any) -> None:
    task_id = ask("submit", IMAGE, "--", "sleep", "60")["task_id"]
    until(lambda: ask("explain", task_id)["state"] == "running")
    cancelled = run("cancel", task_id, "no-such-task")
    assert cancelled.exit_code == 1
    assert "told to stop on" in cancelled.stdout
    until(lambda: ask("explain", task_id)["state"] == "cancelled")


def test_many_jobs_of_one_kind(ask: Any) -> None:
    report = ask("submit", "--count", "3", "--cpu", "1", "--wait", IMAGE, "--", "true")
    assert [task["state"] for task in report["tasks"]] == ["succeeded"] * 3
    assert len({task["task_id"] for task in report["tasks"]}) == 3


def test_nodes_and_drain(run: Any, ask: Any) -> None:
    [big, small] = ask("nodes")["nodes"]
    assert (big["name"], small["name"]) == ("big@local", "small@local")
    assert big["state"] == "up"
    assert big["cpu"]["capacity"] == 4
    assert big["gpu"]["devices"] == [1.0]
    assert small["labels"] == {"zone": "b", "containers": "yes"}
    assert ask("drain", "small")["state"] == "draining"
    assert ask("nodes", "small")["nodes"][0]["state"] == "draining"
    waits = ask("submit", "--node", "small", IMAGE, "--", "true")
    assert "not_accepting" in waits["waits_because"]
    assert ask("drain --undo", "small")["state"] == "up"
    until(lambda: ask("explain", waits["task_id"])["state"] == "succeeded")
    unknown = run("drain", "medium")
    assert unknown.exit_code == 2
    assert "big@local, small@local" in unknown.stderr


def test_status_counts_what_happened(run: Any, ask: Any) -> None:
    assert ask("submit", "--wait", IMAGE, "--", "true")["exit_code"] == 0
    until(lambda: ask("status")["tasks"]["on_nodes"] == 0)
    status = ask("status")
    assert status["nodes"]["by_state"] == {"up": 2}
    assert status["outcomes"]["succeeded"] >= 1
    assert status["decisions"]["placements"] >= 1
    assert status["decisions"]["fallback_rate"] == 0
    assert status["redis"]["appendonly"] is True
    assert status["redis"]["maxmemory_policy"] == "noeviction"
    assert status["dead_letters"] == 0
    assert "2 up" in run("status").stdout


def test_tau_is_shown_and_set(run: Any, ask: Any) -> None:
    assert ask("tau set", "gpu-training", "90")["old_s"] == 60.0
    shown = {row["type"]: row["tau_s"] for row in ask("tau show")["tau"]}
    assert shown["gpu-training"] == 90.0
    known = ask("tau show")
    assert all({"sigma_s", "variance_s2", "samples", "outliers"} <= row.keys() for row in known["tau"])
    assert known["families_known"] == len(known["families"])
    assert run("tau", "set", "huge", "1").exit_code == 2
    assert run("tau", "set", "mixed", "0").exit_code == 2


def test_parameters_are_exported_compared_and_loaded(run: Any, ask: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    ask("params export", str(file))
    assert ask("params diff", str(file))["changes"] == []
    file.write_text(file.read_text().replace('"alpha": 10.0', '"alpha": 12.0'))
    assert ask("params diff", str(file))["changes"] == ["alpha: 10 -> 12"]
    loaded = ask("params load", str(file))
    shown = ask("params show")
    assert shown["version"] == loaded["version"]
    assert shown["parameters"]["alpha"] == 12.0
    assert shown["source"] == "file mine.json"
    file.write_text("{")
    refused = run("params", "load", str(file))
    assert refused.exit_code == 2
    assert "mine.json" in refused.stderr
    assert ask("params show")["version"] == loaded["version"]


def test_doctor_is_content_with_a_good_server(ask: Any) -> None:
    checks = {check["name"]: check["status"] for check in ask("doctor")["checks"]}
    for name in (
        "Python",
        "packages",
        "configuration",
        "Redis",
        "Redis appendonly",
        "Redis maxmemory-policy",
        "clock",
        "history",
    ):
        assert checks[name] == "ok"


@pytest.mark.parametrize("program", [MAIN, CELERY])
def test_the_same_commands_in_both_programs(
    cluster: LocalCluster, tmp_path: Path, program: tuple[str, ...]
) -> None:
    done = start(cluster, tmp_path, *program, "submit", "--wait", "--json", IMAGE, "--", "sh", "-c", "exit 5")
    assert done.returncode == 5, done.stderr
    assert json.loads(done.stdout)["state"] == "failed"
    done = start(cluster, tmp_path, *program, "explain", "no-such-task")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_parameters_are_rolled_back_and_pinned(run: Any, ask: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    ask(f"params export {file}")
    versions = []
    for alpha in (13.0, 14.0, 15.0):
        file.write_text(re.sub(r'"alpha": [0-9.]+', f'"alpha": {alpha}', file.read_text()))
        versions.append(ask(f"params load {file}")["version"])
    back = ask("params rollback")
    assert (back["back_to"], back["changes"]) == (versions[1], ["alpha: 15 -> 14"])
    back = ask(f"params rollback --to {versions[0]}")
    assert back["changes"] == ["alpha: 14 -> 13"]
    assert ask("params show")["source"] == f"rollback to {versions[0]}"
    refused = run("params", "rollback", "--to", "999")
    assert refused.exit_code == 2
    assert "an earlier version" in refused.stderr
    assert ask("params pin")["pinned"] is True
    assert ask("params show")["pinned"] is True
    assert "epochs publish nothing" in run("params", "show").stdout
    assert ask("params unpin") == {"pinned": False, "was_pinned": True}
    assert ask("params unpin")["was_pinned"] is False
