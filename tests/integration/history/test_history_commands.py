"""The commands that read and change the history, on a history of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cloudai import CloudAI
from cloudai.cli import cloudai
from cloudai.history.collections import RESULTS, TASKS
from cloudai.settings import Settings

from .conftest import Jobs


@pytest.fixture
def run(door, database) -> Iterator[Callable[..., Result]]:
    """A command, run in this process; only the history is there for it."""
    settings = Settings.load(
        redis={"url": "redis://127.0.0.1:1/0"}, optimiser={"mongo_url": door.url, "database": database.name}
    )
    app = CloudAI("commands", settings=settings, set_as_current=False)

    def run(*args: str) -> Result:
        return CliRunner(env={"COLUMNS": "100"}).invoke(cloudai, args, obj=SimpleNamespace(app=app))

    yield run
    app.close()


@pytest.fixture
def ask(run) -> Callable[..., Any]:
    """A command with `--json`: its one value."""

    def ask(*args: str) -> Any:
        done = run(*args, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return ask


# --- migrate-task-types

OLD = {
    "kept": {"task_type": "gpu-training", "cpu": 1},
    "cpu": {"task_type": "cpu"},
    "gpu": {"type": "gpu", "gpu": 4, "cpu": 8},
    "dl": {"task_type": "dl"},
    "other": {"task_type": "batch"},
    "number": {"task_type": 7},
    "missing": {"cpu": 8.0},
    "empty": {"task_type": "", "memory": 16, "cpu": 1},
    "nothing": {},
    "odd": {"cpu": "many"},
}
TODAY = {
    "kept": "gpu-training", "cpu": "cpu-light", "gpu": "gpu-inference", "dl": "gpu-training", "other": "mixed",
    "number": "mixed", "missing": "cpu-heavy", "empty": "memory-heavy", "nothing": "mixed", "odd": None,
}  # fmt: skip


def types(database, collection) -> dict[str, str | None]:
    return {document["_id"]: document.get("task_type") for document in database[collection].find()}


def test_a_dry_run_says_what_would_change_and_changes_nothing(run, ask, database):
    database[TASKS].insert_many([{"_id": name, **fields} for name, fields in OLD.items()])
    before = list(database[TASKS].find())
    report = ask("migrate-task-types", "--dry-run")
    assert list(database[TASKS].find()) == before
    assert (report["dry_run"], report["changed"]) == (True, 8)
    tasks = report["collections"][TASKS]
    assert (tasks["read"], tasks["changed"]) == (10, 8)
    assert tasks["before"] == {
        "gpu-training": 1, "cpu": 1, "gpu": 1, "dl": 1, "batch": 1, "(no text)": 1, "(none)": 4,
    }  # fmt: skip
    assert tasks["after"] == {
        "gpu-training": 2, "cpu-light": 1, "gpu-inference": 1, "mixed": 3, "cpu-heavy": 1, "memory-heavy": 1,
        "(none)": 1,
    }  # fmt: skip
    assert tasks["unreadable"] == {"cpu is no number": 1}
    shown = run("migrate-task-types", "--dry-run").output
    assert "10 read, 8 would change" in shown
    assert "1 left as they are: cpu is no number" in shown
    assert "Nothing was changed" in shown


def test_types_are_brought_to_today_in_tasks_and_results(ask, database):
    for collection in (TASKS, RESULTS):
        database[collection].insert_many([{"_id": name, "seq": "1", **fields} for name, fields in OLD.items()])
    report = ask("migrate-task-types")
    assert (report["dry_run"], report["changed"]) == (False, 16)
    assert types(database, TASKS) == types(database, RESULTS) == TODAY
    assert database[TASKS].find_one({"_id": "gpu"}) == {
        "_id": "gpu", "seq": "1", "type": "gpu", "gpu": 4, "cpu": 8, "task_type": "gpu-inference",
    }  # fmt: skip
    again = ask("migrate-task-types")
    assert again["changed"] == 0
    assert again["collections"][TASKS]["before"] == report["collections"][TASKS]["after"]


def test_many_are_updated_in_bulk(ask, database):
    database[TASKS].insert_many([{"_id": i, "task_type": "cpu"} for i in range(2500)])
    assert ask("migrate-task-types")["changed"] == 2500
    assert set(types(database, TASKS).values()) == {"cpu-light"}


def test_a_history_that_is_away_is_said_in_one_message(run, door):
    door.shut()
    done = run("migrate-task-types")
    assert done.exit_code == 1
    assert "MongoDB does not answer" in done.stderr
    assert "optimiser.mongo_url" in done.stderr


# --- tau history


@pytest.fixture
def recorded(jobs: Jobs) -> Jobs:
    jobs.complete("t1", runtime_s=10.0)
    jobs.lab.tau.set("mixed", 30.0)
    jobs.record()
    return jobs


def test_tau_is_shown_over_time(recorded, run, ask):
    shown = run("tau", "history").output
    assert "cpu-light" in shown
    assert "set by hand" in shown
    learned, by_hand = ask("tau", "history")["samples"]
    spread = learned.pop("sigma_s")
    assert spread >= 0
    assert learned.pop("at") <= by_hand["at"]
    assert learned == {"type": "cpu-light", "tau_s": 6.0, "runtime_s": 10.0, "by_hand": False}
    assert (by_hand["type"], by_hand["tau_s"], by_hand["runtime_s"], by_hand["by_hand"]) == ("mixed", 30.0, None, True)
    assert [sample["type"] for sample in ask("tau", "history", "mixed")["samples"]] == ["mixed"]
    assert "The newest 1 of 2" in run("tau", "history", "--limit", "1").output
    assert ask("tau", "history", "--since", "1ms")["samples"] == []


def test_what_is_asked_wrongly_is_said(run):
    unknown = run("tau", "history", "cpu-medium")
    assert unknown.exit_code == 2
    assert "cpu-light" in unknown.stderr
    assert run("tau", "history", "--since", "yesterday").exit_code == 2


def test_tau_is_drawn(recorded, run, tmp_path: Path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "tau.png"
    done = run("tau", "history", "--plot", str(picture))
    assert done.exit_code == 0, done.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    wrong = run("tau", "history", "--plot", str(tmp_path / "tau.doc"))
    assert wrong.exit_code == 2
    assert "png" in wrong.stderr


def test_without_matplotlib_it_says_what_brings_it(recorded, run, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    done = run("tau", "history", "--plot", str(tmp_path / "tau.png"))
    assert done.exit_code == 1
    assert "cloudai[plot]" in done.stderr
