"""What runs beside the nodes of a local cluster: the document store with the control process, and Flower."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudai.embedded import EmbeddedMongo
from cloudai.embedded.server import free_port
from cloudai.node_process import NodeProcess

#: Name of the control process and of its log.
CONTROL = "control"
FLOWER = "flower"


@dataclass(frozen=True, slots=True)
class LocalServices:
    """Which of them a cluster has, and where they listen; a port of 0 picks a free one."""

    #: The document store and the control process, which records the history there and runs the epochs.
    control: bool = False
    flower: bool = False
    mongo_port: int = 0
    flower_port: int = 0


def problem_of_control() -> str | None:
    """Why the control process cannot run here, or None."""
    return _missing(("pymongo", "beat"), ("sklearn", "beat"), ("nx_27017", "local"))


def problem_of_flower() -> str | None:
    """Why Flower cannot run here, or None."""
    return _missing(("flower", "flower"))


def _missing(*needed: tuple[str, str]) -> str | None:
    for module, extra in needed:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install 'cloudai[{extra}]'"
    return None


class RunningServices:
    """The services of one cluster, in its folder. What cannot run here is left out, and `left_out` says why."""

    def __init__(self, folder: Path, wanted: LocalServices) -> None:
        self._folder = folder
        self._wanted = wanted
        self.left_out: dict[str, str] = {}
        self._mongo: EmbeddedMongo | None = None
        self._flower_port = 0
        self._processes: dict[str, NodeProcess] = {}
        for name, asked, problem in (
            (CONTROL, wanted.control, problem_of_control),
            (FLOWER, wanted.flower, problem_of_flower),
        ):
            why = problem() if asked else None
            if why is not None:
                self.left_out[name] = why
        if wanted.control and CONTROL not in self.left_out:
            self._mongo = EmbeddedMongo(folder / "mongo", port=wanted.mongo_port)

    @property
    def mongo_url(self) -> str | None:
        """The document store, once it has started; None: there is none."""
        return self._mongo.url if self._mongo is not None and self._mongo.is_running() else None

    @property
    def sends_events(self) -> bool:
        """Whether the nodes are to send Celery's events, which Flower listens to."""
        return self._wanted.flower and FLOWER not in self.left_out

    @property
    def mongo_pid(self) -> int | None:
        """Process id of the document store."""
        return self._mongo.pid if self._mongo is not None else None

    @property
    def flower_url(self) -> str | None:
        """Flower's page; None: there is none."""
        return f"http://127.0.0.1:{self._flower_port}" if FLOWER in self._processes else None

    def pid(self, name: str) -> int | None:
        """Process id of the control process or of Flower; None when it does not run."""
        process = self._processes.get(name)
        return process.pid if process is not None else None

    def settings(self) -> dict[str, Any]:
        """What section `optimiser` needs, once the store has started."""
        if self.mongo_url is None:
            return {}
        return {"mongo_url": self.mongo_url, "state_dir": str(self._folder / "control")}

    def start_store(self) -> None:
        """Start the document store. EmbeddedServerError where it does not start."""
        if self._mongo is not None:
            self._mongo.start()

    def start(self, app: str, environment: Mapping[str, str]) -> None:
        """Start the processes; they may take some seconds until they work."""
        celery = [sys.executable, "-m", "celery"]
        if self._mongo is not None:
            command = [*celery, "-A", "cloudai_beat.app", "worker", "-B", "-P", "solo"]
            self._start(CONTROL, [*command, "-n", f"{CONTROL}@local", "--loglevel", "INFO"], environment)
        if self.sends_events:
            self._flower_port = self._wanted.flower_port or free_port()
            command = [*celery, "-A", app, "flower", "--address=127.0.0.1", f"--port={self._flower_port}"]
            # It answers on this machine only.
            self._start(FLOWER, command, {"FLOWER_UNAUTHENTICATED_API": "true", **environment})

    def _start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        log = self._folder / "logs" / f"{name}.log"
        self._processes[name] = NodeProcess(name, command, environment, log)

    def ended(self) -> list[str]:
        """A line for each that ended although nobody stopped it."""
        lines = [
            f"{name} has ended. The end of {process.log_path}:\n{process.log_end()}"
            for name, process in self._processes.items()
            if not process.is_running()
        ]
        if self._mongo is not None and not self._mongo.is_running():
            lines.append(f"the document store has ended; its log is {self._mongo.log_path}")
        return lines

    @property
    def processes(self) -> list[NodeProcess]:
        """Control process and Flower, as far as they were started."""
        return list(self._processes.values())

    def stop(self) -> None:
        """End what is left: processes that were told to go and have not, and the store."""
        for process in self._processes.values():
            process.end()
        self._processes.clear()
        if self._mongo is not None:
            self._mongo.stop()
