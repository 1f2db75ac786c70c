"""A cluster of real processes for a test module: Valkey, nodes and ordinary workers, each killed or stopped at will."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudai import CloudAI
from cloudai.embedded import EmbeddedValkey
from cloudai.local_cluster import _as_environment
from cloudai.settings import Settings

from ...waiting import PATIENCE_S, until
from .jobs import build

HERE = Path(__file__).parent

#: Short, so that a test need not wait long for a node to be judged. Seconds.
TIMERS = {"heartbeat_interval_s": 0.3, "heartbeat_timeout_s": 3.0, "lease_s": 4.0, "lease_margin_s": 0.5}


def lines(path: Path) -> list[str]:
    """What a witness has seen."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: a test run that is killed leaves no worker behind.
    _libc.prctl(1, signal.SIGKILL)


class WorkerProcess:
    """A Celery worker as a process of its own."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log_path = log
        with log.open("ab") as out:
            # An earlier worker of this name has written before it.
            self._log_begins = out.tell()
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_bytes()[self._log_begins :].decode("utf-8", "replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, the pool's processes too, as when the machine goes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def ended(self, timeout_s: float = PATIENCE_S) -> int:
        return self.process.wait(timeout_s)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class Cluster:
    """Valkey, an application that submits to it, and the workers that a test starts."""

    def __init__(self, folder: Path, settings: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.folder = folder
        self.valkey = EmbeddedValkey(folder / "valkey").start()
        self.heard = folder / "heard"
        self._sections: dict[str, dict[str, Any]] = {
            "redis": {"url": self.valkey.url},
            "node": {**TIMERS, "runner": "process", "work_dir": str(folder / "work")},
        }
        for section, values in (settings or {}).items():
            self._sections.setdefault(section, {}).update(values)
        #: More for the environment of the workers that are started from now on.
        self.environment: dict[str, str] = {}
        self._workers: list[WorkerProcess] = []
        self._apps: list[CloudAI] = []
        self.app = self.new_app()
        self.deployment = self.app.deployment

    def new_app(self, settings: Mapping[str, Mapping[str, Any]] | None = None, **options: Any) -> CloudAI:
        """One more application of this deployment in this process."""
        sections = {section: dict(values) for section, values in self._sections.items()}
        for section, values in (settings or {}).items():
            sections.setdefault(section, {}).update(values)
        app = build(Settings.load(**sections), **options)
        self._apps.append(app)
        return app

    def configure(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Change the settings of the applications and workers that are made from now on."""
        for section, values in settings.items():
            self._sections.setdefault(section, {}).update(values)

    def __getitem__(self, task: str) -> Any:
        """A task of the application."""
        return self.app.tasks[f"jobs.{task}"]

    def start(
        self,
        name: str = "one",
        *args: str,
        cpu: float = 2,
        memory: str = "4GiB",
        slots: int = 0,
        wait: bool = True,
        redis_url: str = "",
        project: str = "jobs",
        **node: Any,
    ) -> WorkerProcess:
        """Start a worker, a node unless `--no-node` is among `args`, and wait until it takes tasks.

        `project` is the module with its application, in this folder.
        """
        sections = {section: dict(values) for section, values in self._sections.items()}
        sections["node"].update(cpu=cpu, memory=memory, slots=slots or int(cpu), storage="10GiB", gpus=0)
        sections["node"].update(node)
        if redis_url:
            sections["redis"]["url"] = redis_url
        environment = {
            **os.environ, **_as_environment(sections), **self.environment,
            "PYTHONPATH": str(HERE), "JOBS_HEARD": str(self.heard), "PYTHONWARNINGS": "default",
        }  # fmt: skip
        command = [sys.executable, "-m", "celery", "-A", project, "worker", "-n", f"{name}@t", "-l", "info", *args]
        worker = WorkerProcess(f"{name}@t", command, environment, self.folder / f"{name}.log")
        self._workers.append(worker)
        if wait:
            self.wait_joined(worker)
        return worker

    def wait_joined(self, worker: WorkerProcess) -> None:
        """Wait until the worker is up, a node's entry is its own."""

        def up() -> bool:
            assert worker.process.poll() is None, worker.log
            return " ready." in worker.log

        until(up, f"{worker.name} is ready")

    def worker(self, name: str) -> WorkerProcess:
        """The latest worker of this name."""
        return next(worker for worker in reversed(self._workers) if worker.name == name)

    def state(self, task_id: str) -> str:
        """State of a task in the ledger; "" when it is unknown."""
        return self.deployment.ledger.entry(task_id).get("state", "")

    def until_state(self, task_id: str, *states: str) -> dict[str, str]:
        """Wait until the ledger has a task in one of these states; its entry."""
        until(lambda: self.state(task_id) in states, lambda: f"{task_id} is {self.state(task_id)}, not {states}")
        return self.deployment.ledger.entry(task_id)

    def node_state(self, name: str) -> str:
        return self.deployment.fleet.entry(f"{name}@t").get("state", "")

    def events(self, task_id: str) -> list[dict[str, str]]:
        """All events of a task, oldest first."""
        client, key = self.deployment.client, self.deployment.keys.events
        found = [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in client.xrange(key)]
        return [event for event in found if event["id"] == task_id]

    def ends(self, task_id: str) -> list[str]:
        """Outcome of every final end that the stream tells of; there must be one."""
        return [e["outcome"] for e in self.events(task_id) if e["event"] == "finished" and e["final"] == "1"]

    def written(self) -> tuple[int, int]:
        """What a refused submission must not change: number of keys, length of the event stream."""
        client = self.deployment.client
        return client.dbsize(), client.xlen(self.deployment.keys.events)

    def quiet(self) -> None:
        """Everything has ended: nothing in flight, every reservation given back, every task ended exactly once."""
        until(lambda: self.deployment.ledger.totals()["live"] == 0, lambda: f"live is 0: {self._unfinished()}")
        until(lambda: not self._reserved(), lambda: f"every reservation is given back: {self._reserved()}")
        client, key = self.deployment.client, self.deployment.keys.events
        until(lambda: client.zcard(self.deployment.keys.unsettled) == 0, "whoever waits for an end was told")
        ends = Counter(f[b"id"] for _, f in client.xrange(key) if f.get(b"final") == b"1")
        begins = Counter(f[b"id"] for _, f in client.xrange(key) if f[b"event"] == b"submitted")
        assert ends == begins

    def _unfinished(self) -> list[str]:
        client, keys = self.deployment.client, self.deployment.keys
        found = (key.decode().rsplit(":", 1)[1] for key in client.scan_iter(keys.task("*")))
        return [f"{i} {self.state(i)}" for i in found if self.state(i) in ("waiting", "placed", "running")]

    def _reserved(self) -> list[str]:
        taken = []
        for name in self.deployment.fleet.names():
            entry = self.deployment.fleet.entry(name)
            if entry.get("state") in ("up", "draining", "down"):
                taken += [
                    f"{name}: {entry[kind]} of {entry[kind + '_capacity']} {kind}"
                    for kind in ("cpu", "memory", "storage", "slots")
                    if entry[kind] != entry[kind + "_capacity"]
                ]
        return taken

    def stop(self) -> None:
        """End what was started."""
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.signal(signal.SIGTERM)
        for worker in self._workers:
            worker.stop()
        for app in self._apps:
            close(app)
        self.valkey.stop()


def close(app: CloudAI) -> None:
    """Close the connections of an application that is not used any more."""
    app.close()
    app.backend.result_consumer.stop()
    # Results that somebody still holds are forgotten later, and must not look for a server that is gone.
    app.backend.remove_pending_result = lambda result: result
    app.backend.client.close()
    app.deployment.client.close()
