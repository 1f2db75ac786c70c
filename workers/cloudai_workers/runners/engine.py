"""A Docker-compatible container engine as one node speaks to it: what it can do, and the node's containers there."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

import docker
from docker.errors import APIError, NotFound

from cloudai.containers.errors import EngineUnavailable
from cloudai_workers.runners.base import StopHandle
from cloudai_workers.runners.cgroups import JobGroup
from cloudai_workers.runners.engine_address import engine_address
from cloudai_workers.runners.engine_errors import ENGINE_AWAY, EngineAway, explanation
from cloudai_workers.runners.judgement import raise_if_stopped
from cloudai_workers.runners.labels import NAMESPACE_LABEL, NODE_LABEL
from cloudai_workers.runners.log_frames import frames
from cloudai_workers.runners.reboot import booted_at, ended_with_machine

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that one short engine call may take.
CALL_TIMEOUT_S = 60
#: Between two attempts to ask an engine that is away, seconds.
RETRY_S = 0.2


class Engine:
    """One engine. Nothing is asked of it before it is needed, so that a node may start before its engine.

    Unless a method says otherwise it raises docker's APIError for a refusal, and what else ENGINE_AWAY lists when no
    answer comes. Safe for threads.
    """

    def __init__(self, *, node: str, namespace: str, url: str = "", max_connections: int = 64) -> None:
        """Make one; see `DockerRunner` for what is given."""
        self.address = engine_address(url)
        #: Cores of its machine; 0: not known yet, or not told.
        self.cores = 0
        #: Whether it puts containers into control groups that this process sees.
        self.job_groups = False
        self._labels = {NAMESPACE_LABEL: namespace, NODE_LABEL: node}
        self._url = url
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The SDK's client, connected when first asked for."""
        with self._lock:
            if self._client is None:
                options: dict[str, Any] = {"base_url": self._url} if self._url else docker.utils.kwargs_from_env()
                client = docker.APIClient(
                    **options, version="auto", timeout=CALL_TIMEOUT_S, max_pool_size=self._max_connections
                )
                try:
                    info = client.info()
                except BaseException:
                    client.close()
                    raise
                self.cores = int(info.get("NCPU") or 0)
                self.job_groups = self.is_local and info.get("CgroupDriver") == "cgroupfs" and JobGroup.usable()
                self._client = client
            return self._client

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine."""
        return self.address.startswith(("unix://", "/"))

    def reach(self) -> None:
        """Connect. EngineUnavailable: it refuses."""
        try:
            _ = self.client
        except APIError as error:
            raise EngineUnavailable(f"{self.address}: {explanation(error)}") from error

    def patiently(self, step: Callable[[], T], name: str, control: StopHandle, grace_s: float) -> T:
        """Do for a job what may be done twice; while the engine is away, as when it is restarted, wait for it.

        Args:
            step: asks the engine for something; done again from its beginning.
            name: of the job, for the log.
            control: the job may be stopped meanwhile.
            grace_s: how long the engine may be away.

        Raises:
            EngineAway: it was away for longer.
            Stopped, Superseded: the job was stopped.
            APIError: the engine answers, and refuses.

        """
        away_at: float | None = None
        while True:
            try:
                return step()
            except APIError:
                raise
            except ENGINE_AWAY as error:
                if away_at is None:
                    away_at = time.monotonic()
                    log.warning(
                        "engine-away job=%s: %s does not answer; the job waits up to %g s for it (%s)",
                        name, self.address, grace_s, explanation(error),
                    )  # fmt: skip
                if time.monotonic() - away_at >= grace_s:
                    raise EngineAway(
                        f"no engine has answered at {self.address} for {grace_s:g} s: {explanation(error)}"
                    ) from error
            raise_if_stopped(control)
            time.sleep(RETRY_S)

    def check(self) -> str | None:
        """Why no container can be run here, or None. Raises nothing."""
        try:
            self.client.ping()
        except ENGINE_AWAY as error:
            return f"no container engine answers at {self.address}: {explanation(error)}"
        return None

    def notices(self) -> list[str]:
        """What it does not enforce."""
        info = self.client.info()
        said = ["storage is counted when a job is placed, not enforced by the container engine"]
        if info.get("MemoryLimit") is False:
            said.append("the container engine does not enforce memory limits on this machine")
        if info.get("PidsLimit") is False:
            said.append("the container engine does not enforce process limits on this machine")
        if info.get("LiveRestoreEnabled") is False and self._has_a_daemon():
            said.append("restarting the container engine ends the jobs that run: its live-restore is off")
        return said

    def _has_a_daemon(self) -> bool:
        """Whether containers are its children, as with Docker; Podman's live on by themselves."""
        components = self.client.version().get("Components") or []
        return any(component.get("Name") == "Engine" for component in components)

    def home(self) -> str:
        """Its own id, or its address; "" when it does not answer."""
        try:
            return str(self.client.info().get("ID") or self.address)
        except ENGINE_AWAY:
            return ""

    def containers(self, labels: Mapping[str, str] = MappingProxyType({})) -> list[dict[str, Any]]:
        """The node's containers that have these labels besides, as the engine lists them."""
        wanted = {**self._labels, **labels}
        rows: list[dict[str, Any]] = self.client.containers(
            all=True, filters={"label": [f"{name}={value}" for name, value in wanted.items()]}
        )
        return rows

    def inspect(self, container: str) -> dict[str, Any]:
        """All that the engine knows of a container. NotFound."""
        found: dict[str, Any] = self.client.inspect_container(container)
        return found

    def ended_with_machine(self, container: str) -> bool:
        """Whether a container that has ended did so because the machine went down."""
        if not self.is_local:
            return False
        try:
            state = self.inspect(container)["State"]
        except NotFound:
            return False
        return ended_with_machine(moment(state["StartedAt"]), moment(state["FinishedAt"]), booted_at())

    def kill(self, container: str) -> None:
        """End a container, if it has not ended or gone by itself."""
        with contextlib.suppress(NotFound):
            try:
                self.client.kill(container)
            except APIError as error:
                if error.status_code != 409:  # it ended by itself in between
                    raise

    def remove(self, container: str) -> None:
        """Remove a container, running or not, if it is there."""
        with contextlib.suppress(NotFound):
            try:
                self.client.remove_container(container, force=True, v=True)
            except APIError as error:
                if error.status_code != 409:  # somebody is removing it already
                    raise

    def pause(self, container: str) -> bool:
        """Freeze a container. False: it does not run."""
        try:
            self.client.pause(container)
        except NotFound:
            return False
        except APIError as error:
            if error.status_code == 409 and "already paused" in explanation(error):
                return True
            if error.status_code in (409, 500) and "not running" in explanation(error):
                return False
            raise
        return True

    def unpause(self, container: str) -> bool:
        """Thaw a container, if it is frozen. False: it is not there."""
        try:
            self.client.unpause(container)
        except NotFound:
            return False
        except APIError as error:
            if error.status_code not in (409, 500) or "not paused" not in explanation(error):
                raise
        return True

    def output(self, container: str, *, follow: bool) -> Iterator[tuple[int, bytes]]:
        """Stream and data of what a container wrote, as it came; with `follow`, until it ends.

        Raises:
            LookupError: the container is gone.

        """
        client = self.client
        response = client.get(
            f"{client.base_url}/v{client.api_version}/containers/{container}/logs",
            params={"stdout": 1, "stderr": 1, "follow": int(follow)},
            stream=True,
            timeout=None if follow else CALL_TIMEOUT_S,
        )
        with response:
            if response.status_code == 404:
                raise LookupError(f"container {container} is gone")
            response.raise_for_status()
            # read1 semantics: a chunk as soon as there is one, for following.
            yield from frames(response.raw.stream(65536 if not follow else None, decode_content=True))

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None


def moment(text: str) -> float:
    """Epoch seconds of the engine's RFC 3339 time, which has nanoseconds."""
    whole, _, rest = text.partition(".")
    digits = "".join(c for c in rest[:9] if c.isdigit())
    base = datetime.fromisoformat(whole.rstrip("Z") + "+00:00").timestamp()
    return base + (int(digits) / 10 ** len(digits) if digits else 0.0)
