"""Nodes, control process, beat and Redis of a campaign, as processes that are started, killed, frozen and woken."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from cloudai.embedded import EmbeddedValkey
from cloudai.local_cluster import _as_environment
from cloudai.settings import Settings

from .engine import Engine, engine_problem
from .history import AwayStore
from .jobs import WITNESSES, build
from .network import Forwarder, Namespace, namespace_problem
from .plan import Plan
from .skew import shifted_clock

#: The clock of the skewed node is so far ahead, seconds.
SKEW_S = 7200
SMALL_DISK_MIB = 6
START_TIMEOUT_S = 120.0

_TESTS = Path(__file__).resolve().parents[1]
_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: a campaign that is killed leaves no worker behind.
    _libc.prctl(1, signal.SIGKILL)


def _in_memory(folder: Path) -> Path:
    """A folder in memory where the machine has room for one, else one below `folder`."""
    memory = Path("/dev/shm")
    with contextlib.suppress(OSError):
        if shutil.disk_usage(memory).free > 1 << 30:
            return Path(tempfile.mkdtemp(prefix=folder.name, dir=memory))
    return folder / "valkey"


class Node:
    """One place in the fleet: the process that holds it now, and how to start the next one."""

    def __init__(self, place: str, command: list[str], environment: dict[str, str], log: Path, work_dir: Path) -> None:
        self.place = place
        self.generation = 1
        self.log = log
        #: Where its jobs are.
        self.work_dir = work_dir
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.frozen = False

    @property
    def name(self) -> str:
        """Name in the fleet."""
        return f"{self.place}.{self.generation}@faults"

    @property
    def _arguments(self) -> list[str]:
        return ["-n", self.name]

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; it joins in its own time."""
        if self.alive:
            return
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [*self._command, *self._arguments], env=self._environment, stdout=out, stderr=subprocess.STDOUT,
                cwd=self.log.parent, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        self.frozen = False

    def signal(self, number: signal.Signals) -> None:
        if self.alive:
            assert self._process is not None
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9 of the worker alone: what it started is left to itself, as when the kernel wants its memory."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(20)
        self.frozen = False

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)
        self.frozen = True

    def wake(self) -> None:
        self.signal(signal.SIGCONT)
        self.frozen = False

    def ended(self, timeout_s: float) -> bool:
        """Whether it ends within the time."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


class Fleet:
    """Redis, nodes, control process and beat. `skipped` says what could not be set up, and why."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.skipped: dict[str, str] = {}
        self.witnesses = folder / "witnesses"
        self.witnesses.mkdir()
        self.logs = folder / "logs"
        self.logs.mkdir()
        # With `everysec` a crash while the disk is slow forgets what the last two seconds brought, claims too, and what
        # is promised then is less (docs/reliability.md). In memory, because it is the process that is killed, not its
        # machine, and other work on a slow disk would make each command take as long as a heartbeat may.
        self._redis_folder = _in_memory(folder)
        self.valkey = EmbeddedValkey(self._redis_folder, fsync="always")
        self.store = AwayStore(folder / "mongo")
        self.nodes: dict[str, Node] = {}
        self.engine: Engine | None = None
        self.namespace: Namespace | None = None
        self.forwarder: Forwarder | None = None
        self.beat: Node | None = None
        self.control: Node | None = None
        self._small_disk: Path | None = None

    def start(self) -> None:
        """Start everything and wait until the nodes have joined."""
        self.valkey.start()
        self.app = build(self.settings())
        self.deployment = self.app.deployment
        for place in self.plan.places:
            self.nodes[place] = self._make(place)
            self.nodes[place].start()
        if not self._skip("kill control", self.store.problem):
            self.start_control()
        deadline = time.monotonic() + START_TIMEOUT_S
        while missing := self._not_up():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not up within {START_TIMEOUT_S:g} s: {missing}; logs in {self.logs}")
            time.sleep(0.1)

    def _not_up(self) -> list[str]:
        missing = [node.name for node in self.nodes.values() if not self.is_up(node)]
        if self.control is not None and b"control-started" not in self.control.log.read_bytes():
            missing.append(self.control.name)
        return missing

    @property
    def beside(self) -> list[Node]:
        """What runs beside the nodes."""
        return [process for process in (self.control, self.beat) if process is not None]

    def is_up(self, node: Node) -> bool:
        try:
            entry = self.deployment.fleet.entry(node.name)
        except redis.RedisError:
            return False
        return node.alive and entry.get("state") == "up"

    def sections(self, **node: Any) -> dict[str, dict[str, Any]]:
        """The settings of a process, section by section."""
        return {
            "redis": {"url": self.valkey.url, "durability": "strict"},
            "limits": {"max_attempts": 50},
            # Nobody listens there: the document store is away until the last job has ended.
            "optimiser": {
                "mongo_url": self.store.url,
                "state_dir": str(self.folder / "control"),
                "epoch_interval_s": self.plan.epoch_interval_s,
            },
            "node": {
                "heartbeat_interval_s": 0.5,
                "heartbeat_timeout_s": self.plan.heartbeat_timeout_s,
                "lease_s": self.plan.lease_s,
                "lease_margin_s": self.plan.margin_s,
                "runner": "process",
                "work_dir": str(self.folder / "work"),
                "cpu": 16, "memory": "16GiB", "storage": "50GiB", "gpus": 0, "slots": 10,
                **node,
            },
        }  # fmt: skip

    def settings(self) -> Settings:
        return Settings.load(**self.sections(volumes_allowlist=[str(self.witnesses)]))

    def environment(self, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        return {
            **os.environ, **_as_environment(sections), "PYTHONPATH": str(_TESTS), WITNESSES: str(self.witnesses),
        }  # fmt: skip

    def start_beat(self) -> None:
        """Start the beat of the project, which submits jobs, or start it again after a kill."""
        if self.beat is None:
            schedule = str(self.folder / "beat-schedule")
            self.beat = self._make_beside("beat", "faults.jobs", "beat", "-s", schedule, "--pidfile=")
        self.beat.start()

    def start_control(self) -> None:
        """Start the control process (beat, epoch, recorder) as an operator does, or start it again after a kill."""
        if self.control is None:
            self.control = self._make_beside(
                "control", "cloudai_beat.app", "worker", "-B", "-P", "solo", "-n", "control@faults", "-l", "info"
            )  # fmt: skip
        self.control.start()

    def _make_beside(self, name: str, app: str, *command: str) -> Node:
        return _Beside(
            name, [sys.executable, "-m", "celery", "-A", app, *command], self.environment(self.sections()),
            self.logs / f"{name}.log", self.folder,
        )  # fmt: skip

    def replace(self, place: str) -> None:
        """The node of a place never comes back; an heir of another name starts there."""
        node = self.nodes[place]
        node.generation += 1
        node.start()

    def fill_disk(self) -> None:
        if self._small_disk is not None:
            with contextlib.suppress(OSError), (self._small_disk / "filler").open("wb") as file:
                while True:
                    file.write(b"x" * 65536)

    def free_disk(self) -> None:
        if self._small_disk is not None:
            (self._small_disk / "filler").unlink(missing_ok=True)

    def stop(self) -> None:
        """End everything that was started, jobs that outlived their node included."""
        everything = [*self.nodes.values(), *self.beside]
        for node in everything:
            node.wake()
            node.signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        for node in everything:
            if not node.ended(max(0.1, deadline - time.monotonic())):
                node.kill()
        if hasattr(self, "app"):
            self.app.close()
            self.app.backend.result_consumer.stop()
            self.app.backend.client.close()
            self.deployment.client.close()
        self.valkey.stop()
        if self._redis_folder.parent != self.folder:
            shutil.rmtree(self._redis_folder, ignore_errors=True)
        self.store.stop()
        self._end_leftovers()
        if self.forwarder is not None:
            self.forwarder.close()
        if self.namespace is not None:
            self.namespace.close()
        if self.engine is not None:
            self.engine.close()
        if self._small_disk is not None:
            subprocess.run(["umount", "-l", str(self._small_disk)], capture_output=True)

    def _end_leftovers(self) -> None:
        """Kill what has our folder in its environment: jobs, and whatever else outlived the node that started it."""
        mark = os.fsencode(self.folder)
        for path in Path("/proc").glob("[0-9]*/environ"):
            pid = int(path.parent.name)
            with contextlib.suppress(OSError):
                if pid != os.getpid() and mark in path.read_bytes():
                    os.kill(pid, signal.SIGCONT)
                    os.kill(pid, signal.SIGKILL)

    def _make(self, place: str) -> Node:
        kind = place.rstrip("-0123456789")
        prefix: Sequence[str] = ()
        node: dict[str, Any] = {"labels": {"runner": "process"}}
        sections = self.sections(**node)
        more: dict[str, str] = {}
        if kind == "skewed":
            more, problem = shifted_clock(self.folder, SKEW_S)
            self._skip("clock skew", problem)
        elif kind == "small-disk":
            sections["node"]["work_dir"] = str(self._mount_small_disk())
        elif kind == "docker":
            if not self._skip("restart engine", engine_problem()):
                self.engine = Engine(self.folder / "engine")
                self.engine.start()
                sections = self.sections(
                    runner="docker", docker_url=self.engine.url, labels={"runner": "docker"},
                    volumes_allowlist=[str(self.witnesses)],
                )  # fmt: skip
        elif kind == "far":
            prefix = self._far_away(sections)
        command = [
            *prefix, sys.executable, "-m", "celery", "-A", "faults.jobs", "worker", "--node", "-l", "info",
        ]  # fmt: skip
        work_dir = Path(sections["node"]["work_dir"])
        return Node(place, command, {**self.environment(sections), **more}, self.logs / f"{place}.log", work_dir)

    def _far_away(self, sections: dict[str, dict[str, Any]]) -> Sequence[str]:
        problem = namespace_problem()
        if not problem:
            try:
                self.namespace = Namespace()
            except subprocess.CalledProcessError as error:
                problem = error.stderr.decode(errors="replace").strip()
        if self.namespace is None:
            self._skip("cut network", f"{problem}; a forwarder that freezes stands in")
        self.forwarder = Forwarder(self.valkey.port, self.namespace.host if self.namespace else "127.0.0.1")
        sections["redis"]["url"] = f"redis://{self.forwarder.host}:{self.forwarder.port}/0"
        return self.namespace.prefix if self.namespace else ()

    def cut_network(self) -> None:
        if self.namespace is not None:
            self.namespace.cut()
        elif self.forwarder is not None:
            self.forwarder.freeze()

    def mend_network(self) -> None:
        if self.namespace is not None:
            self.namespace.mend()
        elif self.forwarder is not None:
            self.forwarder.thaw()

    def _mount_small_disk(self) -> Path:
        folder = self.folder / "small"
        folder.mkdir()
        problem = "a file system of its own needs root" if os.geteuid() != 0 or not shutil.which("mount") else ""
        if not problem:
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "none", str(folder)],
                capture_output=True, text=True,
            )  # fmt: skip
            problem = mounted.stderr.strip()
        if not self._skip("fill disk", problem):
            self._small_disk = folder
        return folder

    def _skip(self, what: str, problem: str) -> bool:
        if problem:
            self.skipped[what] = problem
        return bool(problem)


class _Beside(Node):
    """A process that is no node; its command says its name where it needs one."""

    @property
    def name(self) -> str:
        return self.place

    @property
    def _arguments(self) -> list[str]:
        return []
