"""A cluster on this machine: an embedded Valkey, several nodes and, if asked for, the control process and Flower, all
ended by the process that started them.

    with LocalCluster(folder) as cluster:
        app = CloudAI("mine", settings=cluster.settings)

For `cloudai up`, the demo, the benchmarks and the tests.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from cloudai.deployment import Deployment
from cloudai.embedded import EmbeddedValkey
from cloudai.local_nodes import DEFAULT_NODES, LocalNode, RunnerChoice
from cloudai.local_services import LocalServices, RunningServices
from cloudai.node_process import NodeProcess
from cloudai.scheduling.errors import CloudAIError
from cloudai.settings import Settings
from cloudai.settings.sources import ENV_FILE, find_file, variable_name
from cloudai.state.fleet import UP

RunnerName = Literal["docker", "process"]

#: How long all nodes together may take to register, seconds.
START_TIMEOUT_S = 60.0

#: How long running jobs may go on when the cluster is stopped, unless told otherwise, seconds.
STOP_TIMEOUT_S = 10.0

#: How long the control process and Flower have to end once the nodes have, seconds.
_SERVICES_TIMEOUT_S = 5.0

#: How long a node has to stop its jobs once told that waiting is over, seconds.
_COLD_TIMEOUT_S = 10.0

#: Time between two looks at a node that is starting, seconds.
_LOOK_EVERY_S = 0.05

#: Seconds that a container engine has for an answer.
_ENGINE_TIMEOUT_S = 5

#: Where the engine listens unless DOCKER_HOST or node.docker_url says otherwise.
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"

SettingsOverrides = Mapping[str, Mapping[str, Any]]


class LocalClusterError(CloudAIError):
    """The local cluster cannot be started; the message says why and what to do."""


class LocalCluster:
    """Valkey and nodes as child processes. `start()` waits until every node has joined the fleet.

    Args:
        folder: for Valkey's data, the nodes' logs and their working folders; made if it is missing.
        nodes: what to start; names are unique.
        runner: "docker", "process", or "auto": Docker where an engine answers, else processes.
        overrides: further settings of the nodes and of `settings`, section -> key -> value.
        redis_url: a Redis to use; without one an embedded Valkey is started, and ended with the cluster.
        port: port of the embedded Valkey; 0 picks a free one.
        services: what runs beside the nodes: control process with its document store, Flower.
        app: Celery application of the nodes, as `celery -A` takes it.
        environment: further environment of the nodes, for instance PYTHONPATH of a test's own application.

    """

    def __init__(
        self,
        folder: Path | str,
        nodes: Sequence[LocalNode] = DEFAULT_NODES,
        *,
        runner: RunnerChoice = "auto",
        overrides: SettingsOverrides | None = None,
        redis_url: str | None = None,
        port: int = 0,
        services: LocalServices = LocalServices(),  # noqa: B008 - frozen
        app: str = "cloudai",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.nodes = tuple(nodes)
        self.asked_runner = runner
        self._overrides = {section: dict(values) for section, values in (overrides or {}).items()}
        self._valkey = None if redis_url else EmbeddedValkey(self.folder / "valkey", port=port)
        self._redis_url = redis_url
        #: The control process and Flower.
        self.services = RunningServices(self.folder, services)
        self._app = app
        self._environment = dict(environment or {})
        self._processes: list[NodeProcess] = []

    @property
    def url(self) -> str:
        """The Redis that the cluster uses: what CLOUDAI_REDIS__URL of a producer is to be."""
        if self._valkey is not None:
            return self._valkey.url
        assert self._redis_url is not None
        return self._redis_url

    @cached_property
    def runner(self) -> RunnerName:
        """What runs the container jobs; LocalClusterError when Docker was asked for and does not answer."""
        if self.asked_runner == "process":
            return "process"
        if self.engine_problem is None:
            return "docker"
        if self.asked_runner == "docker":
            raise LocalClusterError(
                f"runner: given 'docker', but no container engine answers ({self.engine_problem}). Start "
                "one, or choose 'process' to run jobs as local processes, without isolation"
            )
        return "process"

    @cached_property
    def docker_url(self) -> str:
        """Where the container engine is; "" for the usual place."""
        return Settings.load(**self._overrides).node.docker_url

    @cached_property
    def engine_problem(self) -> str | None:
        """Why no container engine can be used here, or None. Asked once."""
        return _engine_problem(self.docker_url)

    @cached_property
    def settings(self) -> Settings:
        """The settings that an application needs to submit to this cluster. Known once it has started."""
        return Settings.load(**self._sections())

    @cached_property
    def deployment(self) -> Deployment:
        """The cluster's state, to look at."""
        return Deployment(self.settings)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the nodes that run, by their names in the fleet."""
        return {process.name: process.pid for process in self._processes if process.pid is not None}

    @property
    def valkey_pid(self) -> int | None:
        """Process id of the embedded Valkey; None when there is none."""
        return self._valkey.pid if self._valkey is not None else None

    def start(self) -> Self:
        """Start everything and wait until all nodes have joined.

        Raises:
            LocalClusterError: a node ended or did not join within 60 s (with the end of its log), or the
                engine that was asked for does not answer.
            EmbeddedServerError: Valkey cannot run here.
            ConfigurationError: a setting is wrong.
        """
        try:
            (self.folder / "logs").mkdir(parents=True, exist_ok=True)
            if self._valkey is not None:
                self._valkey.start()
            self.services.start_store()
            _ = self.settings  # refused here rather than in every node's log
            self._processes = [self._start_node(node) for node in self.nodes]
            self.services.start(self._app, self._process_environment(self._sections()))
            self._wait_until_joined()
        except BaseException:
            self.stop(timeout_s=0)
            raise
        return self

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End what was started: nodes and services first, the servers last. Ends only that; may be repeated.

        A node finishes what runs for `timeout_s`; then it stops its jobs; what does not end then is killed.
        """
        for service in self.services.processes:
            service.signal(signal.SIGTERM)
        self._signal_and_wait(signal.SIGTERM, timeout_s)
        # Celery's cold shutdown: the node stops its containers and processes.
        self._signal_and_wait(signal.SIGQUIT, _COLD_TIMEOUT_S)
        for process in self._processes:
            process.end()
        self._processes = []
        if "deployment" in self.__dict__:
            self.deployment.client.close()
        ends_at = time.monotonic() + _SERVICES_TIMEOUT_S
        for service in self.services.processes:
            service.wait(ends_at - time.monotonic())
        self.services.stop()
        if self._valkey is not None:
            self._valkey.stop()

    def ended(self) -> list[str]:
        """A line for each part that ended although nobody stopped it, with the end of its log."""
        lines = [
            f"node {process.name} has ended. The end of {process.log_path}:\n{process.log_end()}"
            for process in self._processes
            if not process.is_running()
        ]
        if self._valkey is not None and not self._valkey.is_running():
            lines.append(f"Valkey has ended; its log is {self._valkey.log_path}")
        return [*lines, *self.services.ended()]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _sections(self) -> dict[str, dict[str, Any]]:
        sections = {section: dict(values) for section, values in self._overrides.items()}
        sections.setdefault("redis", {})["url"] = self.url
        sections.setdefault("node", {})["runner"] = self.runner
        sections["optimiser"] = {**self.services.settings(), **sections.get("optimiser", {})}
        return sections

    def _start_node(self, node: LocalNode) -> NodeProcess:
        logs = self.folder / "logs"
        sections = self._sections()
        sections["node"] = {
            "work_dir": str(self.folder / "nodes"),
            "log_dir": str(self.folder / "job-logs"),
            **sections["node"],
            **node.settings(),
        }
        command = [
            *(sys.executable, "-m", "celery", "-A", self._app, "worker", "--node"),
            *("-n", node.full_name, "--loglevel", "INFO"),
            *(["-E"] if self.services.sends_events else []),
        ]
        environment = {**self._process_environment(sections), **node.environment}
        return NodeProcess(node.full_name, command, environment, logs / f"{node.name}.log")

    def _process_environment(self, sections: SettingsOverrides) -> dict[str, str]:
        environment = {**os.environ, **self._environment, **_as_environment(sections)}
        file = find_file(os.environ)
        if file is not None:
            # The processes work in another folder, and are to read the file that this process read.
            environment[ENV_FILE] = str(file.resolve())
        return environment

    def _wait_until_joined(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        missing = list(self._processes)
        while missing:
            for process in list(missing):
                if not process.is_running():
                    raise LocalClusterError(self._no_start(process, "ended while it started"))
                if self._has_joined(process):
                    missing.remove(process)
            if missing and time.monotonic() >= deadline:
                late = f"did not join within {START_TIMEOUT_S:.0f} s"
                raise LocalClusterError(self._no_start(missing[0], late))
            time.sleep(_LOOK_EVERY_S)

    def _has_joined(self, process: NodeProcess) -> bool:
        entry = self.deployment.fleet.entry(process.name)
        # The pid, lest an entry that an earlier run left in this folder answers for the node.
        return entry.get("state") == UP and entry.get("pid") == str(process.pid)

    def _no_start(self, process: NodeProcess, what: str) -> str:
        return f"node {process.name} {what}. The end of {process.log_path}:\n{process.log_end()}"

    def _signal_and_wait(self, number: signal.Signals, timeout_s: float) -> None:
        running = [process for process in self._processes if process.is_running()]
        for process in running:
            process.signal(number)
        deadline = time.monotonic() + timeout_s
        for process in running:
            process.wait(deadline - time.monotonic())


def _as_environment(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Settings as the environment variables that bring them."""
    return {
        variable_name(section, key): value if isinstance(value, str) else json.dumps(value)
        for section, values in sections.items()
        for key, value in values.items()
    }


def _engine_problem(url: str) -> str | None:
    """Why the container engine at `url` ("" for the usual place) cannot be used, or None."""
    try:
        import docker
        import docker.utils
        from docker.constants import DEFAULT_DOCKER_API_VERSION
        from docker.errors import DockerException
    except ImportError:
        return "the Docker library is not installed: `pip install 'cloudai[worker]'`"
    options: dict[str, Any] = {"base_url": url} if url else docker.utils.kwargs_from_env()
    address = options.get("base_url") or _DEFAULT_ENGINE
    if address.startswith("unix://"):
        # Asked here first, because the library leaves its socket open where nothing answers.
        path = "/" + address.removeprefix("unix://").lstrip("/")
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(path)
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    try:
        # With a version given it does not connect yet, so there is something to close when nothing answers.
        client = docker.APIClient(version=DEFAULT_DOCKER_API_VERSION, timeout=_ENGINE_TIMEOUT_S, **options)
    except DockerException as error:
        return str(error)
    try:
        client.version(api_version=False)
    except (DockerException, OSError) as error:
        return str(error)
    finally:
        client.close()
    return None
