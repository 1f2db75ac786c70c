"""The jobs of a node as its guardian sees them: containers of the engine, or processes by their folders.

The standard library alone, and what of the runners needs no more.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from cloudai_workers.runners import cgroups
from cloudai_workers.runners.engine_address import engine_address
from cloudai_workers.runners.labels import NAMESPACE_LABEL, NODE_LABEL
from cloudai_workers.runners.process_state import JobFolder, alive, folders, signal_job

#: Seconds that the engine has for an answer.
_TIMEOUT_S = 30.0

#: What goes wrong when an engine is away, or answers with something else than expected.
TROUBLE = (OSError, http.client.HTTPException, ValueError, KeyError)


@dataclass(frozen=True, slots=True)
class GuardedJob:
    """One job that is there, running or ended."""

    #: Of its container, its folder and its control group.
    name: str
    running: bool


class GuardedJobs(Protocol):
    """What the guardian can do. All methods may raise what TROUBLE lists."""

    def found(self) -> list[GuardedJob]:
        """The jobs of this node that are there; paused ones do not count as running."""

    def pause(self, job: GuardedJob) -> None:
        """Freeze it; nothing happens when it has ended."""

    def end(self, job: GuardedJob) -> None:
        """Kill it and remove what is left of it."""


class Containers:
    """The containers of a node."""

    def __init__(self, address: str, namespace: str, node: str) -> None:
        self._address = engine_address(address)
        self._filters = json.dumps({"label": [f"{NAMESPACE_LABEL}={namespace}", f"{NODE_LABEL}={node}"]})

    def found(self) -> list[GuardedJob]:
        """By their labels; see `GuardedJobs`."""
        rows = self._call("GET", f"/containers/json?all=1&filters={quote(self._filters)}")
        return [GuardedJob(row["Names"][0].lstrip("/"), row["State"] == "running") for row in rows or ()]

    def pause(self, job: GuardedJob) -> None:
        """See `GuardedJobs`."""
        self._call("POST", f"/containers/{quote(job.name)}/pause")

    def end(self, job: GuardedJob) -> None:
        """See `GuardedJobs`."""
        found = self._call("GET", f"/containers/{quote(job.name)}/json")
        self._call("DELETE", f"/containers/{quote(job.name)}?force=1&v=1")
        # One that was adopted has a new name, and the group of its first.
        parent = found["HostConfig"].get("CgroupParent") if found else ""
        if parent and parent.startswith(f"{cgroups.ROOT}/"):
            cgroups.JobGroup(Path(parent).name).remove()

    def _call(self, method: str, path: str) -> Any:
        connection = _connect(self._address)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status >= 500 and b"not running" not in body:
            raise OSError(f"the engine answers {answer.status} to {method} {path}: {body[:200]!r}")
        # 404 and 409: it has ended, or is what it is to be already.
        return json.loads(body) if answer.status == 200 else None


class Processes:
    """The jobs of a node that run as processes."""

    def __init__(self, root: Path, namespace: str, node: str) -> None:
        self._root = root
        self._namespace = namespace
        self._node = node

    def found(self) -> list[GuardedJob]:
        """By their folders; see `GuardedJobs`."""
        jobs = []
        for folder in folders(self._root):
            state = folder.state()
            if state is not None and (state.namespace, state.node) == (self._namespace, self._node):
                jobs.append(GuardedJob(folder.path.name, alive(state) and not _is_stopped(state.pid)))
        return jobs

    def pause(self, job: GuardedJob) -> None:
        """See `GuardedJobs`."""
        self._signal(job, signal.SIGSTOP)

    def end(self, job: GuardedJob) -> None:
        """See `GuardedJobs`."""
        self._signal(job, signal.SIGKILL)
        group = cgroups.JobGroup(job.name)
        group.kill()
        group.remove()
        JobFolder(self._root / job.name).remove()

    def _signal(self, job: GuardedJob, number: int) -> None:
        state = JobFolder(self._root / job.name).state()
        if state is not None:
            signal_job(job.name, state, number)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                self.sock.close()
            raise


def _connect(address: str) -> http.client.HTTPConnection:
    """A connection to the engine. ValueError for an address that only its own client understands (ssh)."""
    parts = urlsplit(address if "://" in address else f"unix://{address}")
    if parts.scheme == "unix":
        return _UnixConnection(parts.path or f"/{parts.netloc}")
    host, port = parts.hostname or "localhost", parts.port
    certificates = os.environ.get("DOCKER_CERT_PATH")
    if parts.scheme == "https" or (parts.scheme == "tcp" and os.environ.get("DOCKER_TLS_VERIFY")):
        context = ssl.create_default_context(cafile=f"{certificates}/ca.pem" if certificates else None)
        if certificates:
            context.load_cert_chain(f"{certificates}/cert.pem", f"{certificates}/key.pem")
        return http.client.HTTPSConnection(host, port or 2376, timeout=_TIMEOUT_S, context=context)
    if parts.scheme in ("tcp", "http"):
        return http.client.HTTPConnection(host, port or 2375, timeout=_TIMEOUT_S)
    raise ValueError(f"the guardian cannot reach an engine at {address}: unix, tcp or https")
