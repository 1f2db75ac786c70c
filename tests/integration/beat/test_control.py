"""The control process as an operator starts it: epochs on schedule, the file exported and watched, two at once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cloudai.app import CloudAI
from cloudai.cli import cloudai as program
from cloudai.deployment import Deployment
from cloudai.embedded import EmbeddedMongo, EmbeddedValkey
from cloudai.history.collections import RESULTS
from cloudai.history.store import HistoryStore
from cloudai.settings import Settings
from cloudai_beat.app import build
from cloudai_beat.control import ENTRY, add_control
from cloudai_beat.synthetic import Truth, synthetic_history

from ...waiting import until
from ..celery.cluster import WorkerProcess
from .test_epoch import document

DATABASE = "control"
#: Enough to learn from, and too few for a search, whose engine may have to be compiled first.
FEW = 90
#: The scheme that came before: six numbers in one object.
OLD_FLAT_SCHEMA = {
    "w_deadline": 0.4, "w_load": 0.2, "w_affinity": 0.1, "w_energy": 0.1, "w_latency": 0.1, "w_penalty": 0.1,
}  # fmt: skip


class Site:
    """A Valkey, a document store with a day of history in it, and control processes that a test starts."""

    def __init__(self, folder: Path, valkey: EmbeddedValkey, mongo: EmbeddedMongo) -> None:
        self.folder = folder
        self.sections: dict[str, dict[str, Any]] = {
            "redis": {"url": valkey.url, "namespace": "site"},
            "optimiser": {
                "mongo_url": mongo.url,
                "database": DATABASE,
                "epoch_interval_s": 1.0,
                "state_dir": str(folder / "one"),
            },
        }
        self.deployment = Deployment(Settings.load(**self.sections))
        self.processes: list[WorkerProcess] = []

    def seed(self, mongo: EmbeddedMongo, records: int, seed: int) -> None:
        history, _ = synthetic_history(Truth(speeds={"fast": 0.5, "slow": 2.0}), records, seed=seed)
        now = time.time()
        rows = [document(record, now - 60 - i) for i, record in enumerate(history)]
        with (
            HistoryStore(mongo.url, DATABASE, timeout_s=10) as store,
            store._connection.database("to seed", writing=True) as database,
        ):
            database[RESULTS].delete_many({})
            database[RESULTS].insert_many(rows)

    def start(self, name: str, **optimiser: Any) -> WorkerProcess:
        sections = {**self.sections, "optimiser": {**self.sections["optimiser"], **optimiser}}
        settings = {
            f"CLOUDAI_{section}__{key}".upper(): str(value)
            for section, values in sections.items()
            for key, value in values.items()
        }
        environment = {**os.environ, **settings, "PYTHONWARNINGS": "default"}
        command = [sys.executable, "-m", "celery", "-A", "cloudai_beat.app", "worker", "-B", "-P", "solo"]
        command += ["-n", f"{name}@t", "-l", "info"]
        process = WorkerProcess(name, command, environment, self.folder / f"{name}.log")
        self.processes.append(process)
        return process

    @property
    def reports(self) -> list[dict[str, Any]]:
        return self.deployment.epochs.latest()

    @property
    def file(self) -> Path:
        return self.folder / "one" / "ga_output.json"

    def version(self) -> int:
        published = self.deployment.parameters.read()
        return 0 if published is None else published.parameters.version

    def exported(self) -> int:
        try:
            return int(json.loads(self.file.read_text())["version"])
        except (OSError, ValueError):
            return -1


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, mongo_server: EmbeddedMongo
) -> Iterator[tuple[Site, Callable[..., None]]]:
    folder = tmp_path_factory.mktemp("control")
    with EmbeddedValkey(folder / "valkey") as valkey:
        made = Site(folder, valkey, mongo_server)
        yield made, lambda records, seed: made.seed(mongo_server, records, seed)
        for process in made.processes:
            process.stop()
        made.deployment.client.close()


def wait(site: Site, condition: Callable[[], Any], what: str) -> None:
    """Generous: a control process imports scikit-learn, on a machine that does other work too."""

    def met() -> Any:
        for process in site.processes:
            assert process.process.poll() in (None, 0), process.log
        return condition()

    until(met, what, timeout_s=90)


def test_epochs_come_on_schedule_and_the_file_is_exported_watched_and_refused_whole(site):
    it, seed = site
    one = it.start("one")
    two = it.start("two", state_dir=str(it.folder / "two"))
    # Nothing to learn from yet: epochs come all the same, and say why they keep what is in force.
    wait(it, lambda: all("control-started" in process.log for process in (one, two)), "both are up")
    wait(it, lambda: len(it.reports) >= 2, "two epochs have come")
    assert {report["outcome"] for report in it.reports} == {"kept"}
    assert it.reports[0]["trigger"] == "beat"
    seed(FEW, 1)
    wait(it, lambda: it.version() >= 1, "an epoch has published")
    wait(it, lambda: it.exported() == it.version(), "the file has what is in force")
    # Changed by hand: published.
    values = json.loads(it.file.read_text())
    it.file.write_text(json.dumps({**values, "alpha": 33.0}))
    wait(it, lambda: it.deployment.parameters.read().parameters.alpha == 33.0, "the change is published")
    wait(it, lambda: it.exported() == it.version(), "and its version is exported")
    # And broken by hand: refused whole, left alone, and what is in force stays.
    it.file.write_text(json.dumps(OLD_FLAT_SCHEMA))
    wait(it, lambda: "the old flat schema" in one.log, "the old schema is refused by name")
    before = len(it.reports)
    wait(it, lambda: len(it.reports) >= before + 2, "epochs go on")
    assert json.loads(it.file.read_text()) == OLD_FLAT_SCHEMA
    assert it.deployment.parameters.read().parameters.alpha == 33.0
    # Removed, it comes back as the export.
    it.file.unlink()
    wait(it, lambda: it.exported() == it.version(), "the file is exported again")


def test_two_control_processes_are_as_one(site):
    it, _ = site
    times = sorted(report["at"] for report in it.reports)
    assert len(times) >= 4
    # Each has its beat, and epochs come as if there were one.
    assert all(later - earlier >= 0.85 for earlier, later in itertools.pairwise(times))
    wait(it, lambda: (it.folder / "two" / "ga_output.json").exists(), "the second exports too")


def test_they_end_when_told_and_leave_no_beat_behind(site):
    it, _ = site
    children = [child for process in it.processes for child in children_of(process.process.pid)]
    assert children
    first, *others = it.processes
    first.process.send_signal(signal.SIGTERM)
    assert first.ended(60) == 0
    for process in others:
        # Not the group: beat must go by itself.
        os.kill(process.process.pid, signal.SIGKILL)
        process.ended()
    until(lambda: not any(is_alive(pid) for pid in children), "no beat is left", timeout_s=60)
    it.processes.clear()


def test_the_commands_run_an_epoch_and_show_the_latest(site):
    it, seed = site
    seed(FEW, 3)
    # One that was killed in the middle holds the lease for a minute.
    it.deployment.client.hdel(it.deployment.keys.epoch, "token")
    app = CloudAI("commands", settings=it.deployment.settings, set_as_current=False)

    def ask(*args: str) -> Any:
        done = CliRunner().invoke(program, [*args, "--json"], obj=type("Obj", (), {"app": app}))
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    trial = ask("epoch", "run", "--dry-run")
    assert (trial["outcome"], trial["version"]) == ("kept", None)
    report = ask("epoch", "run")
    assert report["outcome"] == "published"
    assert report["trigger"] == "command"
    found = ask("epoch", "history", "--limit", "2")["epochs"]
    assert [epoch["epoch_id"] for epoch in found] == [report["epoch_id"], trial["epoch_id"]]
    # Redis forgot: the history has them.
    it.deployment.client.delete(it.deployment.keys.epochs)
    assert ask("epoch", "history", "--limit", "1")["epochs"][0]["epoch_id"] == report["epoch_id"]
    versions = ask("params", "history")["versions"]
    assert versions[0]["version"] == report["version"]
    assert versions[0]["source"] == "epoch"
    assert any(line.startswith("alpha: ") for version in versions for line in version["changes"])
    shown = CliRunner().invoke(program, ["epoch", "history"], obj=type("Obj", (), {"app": app}))
    assert "published" in shown.output
    app.deployment.client.close()
    app.close()


# --- what a project's own application does with it


def test_our_entry_stands_beside_those_of_the_project_whenever_it_sets_them():
    app = CloudAI("theirs", set_as_current=False)
    add_control(app)
    app.conf.beat_schedule = {"theirs": {"task": "tasks.report", "schedule": 10.0}}
    app.finalize()
    assert set(app.conf.beat_schedule) == {"theirs", ENTRY}
    assert app.conf.beat_schedule[ENTRY]["options"]["queue"] == "cloudai.control"


def test_the_control_application_is_no_node_and_takes_only_what_is_meant_for_it():
    app, control = build(Settings.load(redis={"namespace": "mine"}, optimiser={"epoch_interval_s": 5}))
    assert app.node_by_default is False
    assert (app.conf.task_default_queue, control.queue) == ("mine.control", "mine.control")


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
