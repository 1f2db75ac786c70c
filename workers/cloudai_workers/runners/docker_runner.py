"""Runs jobs as containers of a Docker-compatible engine, with hard limits and safe defaults.

One run costs the five round trips of a bare run (create, start, wait, logs, remove) and one more, which
tells the engine's own times of start and finish and whether memory ran out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import docker
from docker.errors import APIError, NotFound

from cloudai.containers.errors import EngineUnavailable, ImageNotFound, Refused, Superseded
from cloudai.containers.result import ContainerResult
from cloudai_workers.pause_notes import PauseNotes
from cloudai_workers.runners import cgroups
from cloudai_workers.runners.artefacts import Artefacts, JobArtefacts
from cloudai_workers.runners.base import Job, LiveJob, StopHandle, attempt_of, job_name
from cloudai_workers.runners.container_config import LOG_FILES, container_config
from cloudai_workers.runners.engine_errors import ENGINE_AWAY, create_failure, explanation, is_missing_image
from cloudai_workers.runners.image_pull import pull_image
from cloudai_workers.runners.judgement import judged, raise_if_stopped, stopped_error
from cloudai_workers.runners.kept_logs import KeptLogs
from cloudai_workers.runners.labels import ATTEMPT_LABEL, NAMESPACE_LABEL, NODE_LABEL, TASK_LABEL
from cloudai_workers.runners.log_frames import STDOUT, frames
from cloudai_workers.runners.policy import NodePolicy, admit
from cloudai_workers.runners.tails import Tail
from cloudai_workers.runners.watch import Outcome, Watch

log = logging.getLogger(__name__)

#: Seconds that one short engine call may take.
CALL_TIMEOUT_S = 60
#: Seconds that a killed container may take to end.
KILL_TIMEOUT_S = 30.0
#: What a run took at least, seconds. The engine stamps a start once it knows of it, so one that ended at once may have
#: ended before it began.
SHORTEST_RUN_S = 0.001
#: JSON around one line in the engine's log file, in bytes, at most; and how far escapes stretch a byte.
_LOG_LINE_EXTRA = 90
_LOG_STRETCH = 6


class DockerRunner:
    """Runs each job in a container of its own; see `Runner`."""

    name = "docker"

    def __init__(
        self,
        *,
        node: str,
        namespace: str = "cloudai",
        url: str = "",
        policy: NodePolicy | None = None,
        kept_logs: KeptLogs | None = None,
        engine_grace_s: float = 30.0,
        max_connections: int = 64,
        notes: PauseNotes | None = None,
        work_dir: Path | None = None,
        still_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare a runner; nothing is asked of the engine yet.

        Args:
            node: name of this node, for the labels by which a restarted node finds its containers.
            namespace: keeps fleets on one engine apart.
            url: the engine's address, such as unix:///run/podman/podman.sock; "" is Docker's own choice.
            policy: the operator's allowlists.
            kept_logs: where the full output of each run is kept; None keeps it only while the run lasts.
            engine_grace_s: how long a run waits for an engine that went away to come back.
            max_connections: connections kept open to the engine: three for each job at once is enough.
            notes: where it is noted how long jobs were paused, for a later incarnation of the node.
            work_dir: where jobs' inputs and outputs are while they run, a folder that the engine sees under the same
                path; a restarted node must be given the same one. None: such jobs are refused.
            still_ours: whether this incarnation still looks after the node's jobs.

        """
        self._node = node
        self._namespace = namespace
        self._url = url
        self._policy = policy or NodePolicy()
        self._kept_logs = kept_logs
        self._engine_grace_s = engine_grace_s
        self._max_connections = max_connections
        self._notes = notes
        self._still_ours = still_ours
        self._lock = threading.Lock()
        self._client: Any = None
        self._engine_cores = 0
        self._job_groups = False
        self._watches: dict[tuple[str, int], Watch] = {}
        self._artefacts = Artefacts(work_dir, namespace, node)
        self._with_artefacts: set[str] = set()

    # --- the engine

    def check(self) -> str | None:
        """Why no container can be run here, or None."""
        try:
            self._engine()
            self._client.ping()
        except ENGINE_AWAY as error:
            return f"no container engine answers at {self._where()}: {explanation(error)}"
        return None

    def notices(self) -> list[str]:
        """What the engine does not enforce."""
        info = self._engine().info()
        said = ["storage is counted when a job is placed, not enforced by the container engine"]
        if info.get("MemoryLimit") is False:
            said.append("the container engine does not enforce memory limits on this machine")
        if info.get("PidsLimit") is False:
            said.append("the container engine does not enforce process limits on this machine")
        return said

    def home(self) -> str:
        """The engine's own id; see `Runner.home`."""
        try:
            return str(self._engine().info().get("ID") or self._where())
        except ENGINE_AWAY:
            return ""

    def _where(self) -> str:
        return self._url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    def _engine(self) -> Any:
        """The client, connected when first needed, so that a node may start before its engine."""
        with self._lock:
            if self._client is None:
                options: dict[str, Any] = docker.utils.kwargs_from_env()
                if self._url:
                    options = {"base_url": self._url}
                client = docker.APIClient(
                    **options, version="auto", timeout=CALL_TIMEOUT_S, max_pool_size=self._max_connections
                )
                try:
                    info = client.info()
                except BaseException:
                    client.close()
                    raise
                self._engine_cores = int(info.get("NCPU") or 0)
                local = self._where().startswith("unix://") or self._where().startswith("/")
                self._job_groups = (
                    local and info.get("CgroupDriver") == "cgroupfs" and cgroups.JobGroup.usable()
                )
                self._client = client
            return self._client

    def _address(self, container: str, action: str) -> str:
        return f"{self._client.base_url}/v{self._client.api_version}/containers/{container}/{action}"

    # --- one run

    def run(self, job: Job, control: StopHandle) -> ContainerResult:
        """Run one attempt in a container; see `Runner.run`."""
        admitted = admit(job.spec, self._policy)
        raise_if_stopped(control)
        try:
            self._engine()
        except ENGINE_AWAY as error:
            raise EngineUnavailable(f"{self._where()}: {explanation(error)}") from error
        name = job_name(job.task_id, job.attempt)
        group = cgroups.JobGroup(name) if self._job_groups else None
        artefacts = self._artefacts.of(name, admitted)
        config = container_config(
            job, admitted, self._namespace, self._engine_cores, group.path if group else None,
            artefacts.mounts() if artefacts else (),
        )  # fmt: skip
        container: str | None = None
        self._with_artefacts.add(name)
        try:
            pull_s = 0.0
            container, live = self._adopted(job, name)
            if container is not None:
                group = self._group_of(container)
                artefacts = self._artefacts.of(self._first_name(container), admitted)
            else:
                if artefacts is not None and not self._is_there(name):
                    artefacts.prepare(job, lambda: raise_if_stopped(control))
                container, live, pull_s = self._created(job, control, name, config)
            result = self._run_container(job, control, container, live, pull_s, group)
            return result if artefacts is None else self._kept(job, control, artefacts, result)
        except _NoImageError:
            raise ImageNotFound(f"{job.spec.image} vanished after it was pulled") from None
        except APIError as error:
            raise create_failure(error) from error
        except ENGINE_AWAY as error:
            raise EngineUnavailable(explanation(error)) from error
        finally:
            self._with_artefacts.discard(name)
            self._clean_up(name, container, group, artefacts)

    def _kept(
        self, job: Job, control: StopHandle, artefacts: JobArtefacts, result: ContainerResult
    ) -> ContainerResult:
        """Keep the outputs of a job that has succeeded, unless it is stopped meanwhile."""

        def check() -> None:
            if control.reason is not None:
                raise stopped_error(control, result)

        return artefacts.keep(job, job_name(job.task_id, job.attempt), result, check)

    def _first_name(self, container: str) -> str:
        """The name that a container was made under, by which its folders are known: its label stays."""
        labels = self._client.inspect_container(container)["Config"].get("Labels") or {}
        if TASK_LABEL not in labels:
            return container  # it is nobody's job
        return job_name(labels[TASK_LABEL], int(labels[ATTEMPT_LABEL]))

    def _is_there(self, name: str) -> bool:
        try:
            self._client.inspect_container(name)
        except NotFound:
            return False
        return True

    def _adopted(self, job: Job, name: str) -> tuple[str | None, dict[str, Any] | None]:
        """The container that an earlier attempt left, under this attempt's name from now on; None: there is none."""
        if not job.adopts:
            return None, None
        old = job_name(job.task_id, job.adopts)
        try:
            self._client.rename(old, name)
        except NotFound:
            return None, None
        except APIError as error:
            if error.status_code != 409:
                raise
        if self._notes is not None:
            self._notes.renamed(old, name)
        there = self._client.inspect_container(name)
        return there["Id"], there["State"]

    def _group_of(self, container: str) -> cgroups.JobGroup | None:
        """The group of ours that a container was made in, by the name that it had then."""
        parent = self._client.inspect_container(container)["HostConfig"].get("CgroupParent") or ""
        return cgroups.JobGroup(Path(parent).name) if parent.startswith(f"{cgroups.ROOT}/") else None

    def _created(
        self, job: Job, control: StopHandle, name: str, config: dict[str, Any]
    ) -> tuple[str, dict[str, Any] | None, float]:
        """As `_create`, with the image pulled where that is needed; and the seconds that the pull took."""
        pull_s = self._pull(job, control) if job.spec.pull == "always" else 0.0
        try:
            return *self._create(name, config), pull_s
        except _NoImageError:
            if job.spec.pull == "never":
                raise ImageNotFound(f"{job.spec.image} is not on this node, and pull is 'never'") from None
            pull_s += self._pull(job, control)
            return *self._create(name, config), pull_s

    def _pull(self, job: Job, control: StopHandle) -> float:
        begun = time.monotonic()
        finished = pull_image(self._client, job.spec.image, control)
        if not finished:
            raise_if_stopped(control)
        return time.monotonic() - begun

    def _create(self, name: str, config: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
        """The container's id, and its state when it was there already: the name is the fence."""
        while True:
            try:
                created = self._client.create_container_from_config(config, name)
                return created["Id"], None
            except APIError as error:
                if is_missing_image(error):
                    raise _NoImageError from error
                if error.status_code != 409:
                    raise
            with contextlib.suppress(NotFound):  # it was removed in between: create again
                there = self._client.inspect_container(name)
                wanted, has = config["Labels"], there["Config"].get("Labels") or {}
                if any(has.get(label) != value for label, value in wanted.items()):
                    raise Refused(f"a container named {name} is on this node already and is not this job's")
                if there["State"]["Status"] in ("removing", "dead"):
                    self._remove(there["Id"])
                    time.sleep(0.05)  # the engine is busy removing it and tells nobody when it is done
                    continue
                return there["Id"], there["State"]

    def _run_container(
        self,
        job: Job,
        control: StopHandle,
        container: str,
        live: dict[str, Any] | None,
        pull_s: float,
        group: cgroups.JobGroup | None,
    ) -> ContainerResult:
        raise_if_stopped(control)
        watch = Watch(control, job.spec.timeout)
        key = (job.task_id, job.attempt)
        self._watches[key] = watch
        try:
            if live is None or live["Status"] == "created":
                watch.begin()
                self._client.start(container)
            else:
                paused_s = self._notes.resumed(job_name(*key)) if self._notes is not None else 0.0
                watch.begin(max(0.0, time.time() - _moment(live["StartedAt"])), paused_s)
                if live["Status"] == "exited":
                    watch.ended()  # in time, however late it is now
                elif live["Status"] == "paused":
                    self._client.unpause(container)
            usage = _LiveUsage(self._client, container, group)
            if group is not None and not group.exists():
                # The engine's groups are not those that we see (this process is in a container itself).
                self._job_groups = False
                usage.group = None
            waiter = threading.Thread(
                target=self._await_end, args=(container, watch), name=f"wait-{job.task_id}", daemon=True
            )
            waiter.start()
            outcome = watch.wait(usage.look)
            if not self._still_ours():
                raise Superseded("a new incarnation of this node looks after it")
            if outcome is not Outcome.ENDED:
                self._kill(container)
                if not watch.wait_ended(KILL_TIMEOUT_S):
                    raise EngineUnavailable(
                        f"the container did not end within {KILL_TIMEOUT_S:.0f} s of its kill"
                    )
        finally:
            del self._watches[key]
        state = self._client.inspect_container(container)["State"]
        if state["Status"] in ("running", "paused"):
            raise EngineUnavailable(f"the engine went away for more than {self._engine_grace_s:.0f} s")
        measured = usage.read()
        stdout, stderr = self._tails(container, job)
        result = ContainerResult(
            exit_code=state["ExitCode"],
            stdout_tail=stdout.text(),
            stderr_tail=stderr.text(),
            stdout_truncated=stdout.truncated,
            stderr_truncated=stderr.truncated,
            waiting_s=job.waiting_s,
            pull_s=pull_s,
            run_s=max(SHORTEST_RUN_S, _moment(state["FinishedAt"]) - _moment(state["StartedAt"]) - watch.paused_s),
            peak_memory=measured.peak_memory,
            cpu_seconds=measured.cpu_seconds,
            node=job.node,
            attempt=job.attempt,
            container_id=container,
            runner=self.name,
        )
        return judged(result, outcome, control, job, out_of_memory=bool(state["OOMKilled"]))

    def _await_end(self, container: str, watch: Watch) -> None:
        """In a thread of its own: the engine's answer to `wait` comes when the container has ended."""
        lost_at: float | None = None
        while True:
            try:
                self._client.wait(container, timeout=None)
                break
            except NotFound:
                break
            except ENGINE_AWAY:
                # With live-restore the container survives its engine: ask again until the engine is back.
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self._engine_grace_s:
                    break
                time.sleep(0.2)
        watch.ended()

    def _tails(self, container: str, job: Job) -> tuple[Tail, Tail]:
        """Both streams' tails from the engine's log, in bounded memory; the whole goes to the log folder."""
        stdout, stderr = Tail(job.limits.tail_bytes), Tail(job.limits.tail_bytes)
        in_log_file = 0
        with contextlib.ExitStack() as closing:
            keep: list[BinaryIO] = []
            if self._kept_logs is not None:
                files = self._kept_logs.files(job.task_id, job.attempt)
                keep = [closing.enter_context(path.open("wb")) for path in files]
            for stream, data in self._log_frames(container, follow=False):
                (stdout if stream == STDOUT else stderr).feed(data)
                in_log_file += _LOG_STRETCH * len(data) + _LOG_LINE_EXTRA
                if keep:
                    keep[0 if stream == STDOUT else 1].write(data)
        if in_log_file >= job.limits.log_bytes // LOG_FILES:
            # The engine may have dropped the oldest output, of either stream.
            stdout.lost_before = stderr.lost_before = True
        return stdout, stderr

    def _log_frames(self, container: str, *, follow: bool) -> Iterator[tuple[int, bytes]]:
        response = self._client.get(
            self._address(container, "logs"),
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

    def _kill(self, container: str) -> None:
        with contextlib.suppress(NotFound):
            try:
                self._client.kill(container)
            except APIError as error:
                if error.status_code != 409:  # it ended by itself in between
                    raise

    def _remove(self, container: str) -> None:
        with contextlib.suppress(NotFound):
            try:
                self._client.remove_container(container, force=True, v=True)
            except APIError as error:
                if error.status_code != 409:  # somebody is removing it already
                    raise

    def _clean_up(
        self, name: str, container: str | None, group: cgroups.JobGroup | None, artefacts: JobArtefacts | None
    ) -> None:
        if not self._still_ours():
            return
        if self._notes is not None:
            self._notes.forget(name)
        if container is not None:
            try:
                self._remove(container)
            except ENGINE_AWAY as error:
                log.warning("container-not-removed container=%s reason=%s", container, explanation(error))
        if artefacts is not None:
            artefacts.remove()
        if group is not None:
            group.remove()

    # --- from other threads and after a restart

    def pause(self, task_id: str, attempt: int, ago_s: float = 0.0) -> bool:
        """Freeze a container; see `Runner.pause`."""
        watch = self._watches.get((task_id, attempt))
        if watch is not None:
            watch.pause(ago_s)  # first, lest it reach its time limit while the engine is slow
        paused = False
        try:
            paused = self._pause(job_name(task_id, attempt))
        finally:
            if not paused and watch is not None:
                watch.resume()
        if paused and self._notes is not None:
            self._notes.paused(job_name(task_id, attempt), ago_s)
        return paused

    def _pause(self, name: str) -> bool:
        try:
            self._engine().pause(name)
        except NotFound:
            return False
        except APIError as error:
            if error.status_code == 409 and "already paused" in explanation(error):
                return True
            if error.status_code in (409, 500) and "not running" in explanation(error):
                return False
            raise
        return True

    def resume(self, task_id: str, attempt: int) -> bool:
        """Thaw a container; see `Runner.resume`."""
        with contextlib.suppress(NotFound):
            try:
                self._engine().unpause(job_name(task_id, attempt))
            except APIError as error:
                if error.status_code not in (409, 500) or "not paused" not in explanation(error):
                    raise
            if watch := self._watches.get((task_id, attempt)):
                watch.resume()
            if self._notes is not None:
                self._notes.resumed(job_name(task_id, attempt))
            return True
        return False

    def kill(self, task_id: str, attempt: int) -> bool:
        """Kill and remove a container; see `Runner.kill`."""
        name = job_name(task_id, attempt)
        group = None
        try:
            self._engine()
            group, first_name = self._group_of(name), self._first_name(name)
            self._client.remove_container(name, force=True, v=True)
            self._artefacts.remove(first_name)
        except NotFound:
            return False
        except APIError as error:
            if error.status_code != 409:
                raise
        if group is not None:
            group.remove()
        if self._notes is not None:
            self._notes.forget(name)
        return True

    def logs(self, task_id: str, follow: bool = False) -> Iterator[bytes]:
        """Output of a task's latest container, or what the log folder kept of it; see `Runner.logs`."""
        found = self._list({TASK_LABEL: task_id})
        if found:
            latest = max(found, key=lambda job: job.attempt)
            return (data for _, data in self._log_frames(latest.container_id, follow=follow))
        if self._kept_logs is None:
            raise LookupError(f"this node has no output of task {task_id}")
        return self._kept_logs.read(task_id)

    def adopt(self) -> list[LiveJob]:
        """Containers of this node, by their labels; see `Runner.adopt`."""
        rows = self._rows({})
        first_names = {job_name(row["Labels"][TASK_LABEL], int(row["Labels"][ATTEMPT_LABEL])) for row in rows}
        self._artefacts.remove_others(first_names | self._with_artefacts)
        return _live_jobs(rows)

    def close(self) -> None:
        """Close the connections to the engine; see `Runner.close`."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _list(self, labels: dict[str, str]) -> list[LiveJob]:
        return _live_jobs(self._rows(labels))

    def _rows(self, labels: dict[str, str]) -> list[dict[str, Any]]:
        wanted = {NAMESPACE_LABEL: self._namespace, NODE_LABEL: self._node, **labels}
        rows: list[dict[str, Any]] = self._engine().containers(
            all=True, filters={"label": [f"{label}={value}" for label, value in wanted.items()]}
        )
        return rows


def _live_jobs(rows: list[dict[str, Any]]) -> list[LiveJob]:
    return [
        LiveJob(
            task_id=row["Labels"][TASK_LABEL],
            # One that was adopted has the label of its first attempt for ever, and the name of its last.
            attempt=attempt_of(row["Names"][0]) if row["Names"] else int(row["Labels"][ATTEMPT_LABEL]),
            node=row["Labels"][NODE_LABEL],
            running=row["State"] in ("running", "paused"),
            container_id=row["Id"],
        )
        for row in rows
        if row["State"] not in ("removing", "dead")
    ]


class _NoImageError(Exception):
    """The engine has no such image."""


class _LiveUsage:
    """What a container used: exactly from a group of ours, else as last seen while it lived."""

    def __init__(self, client: Any, container: str, group: cgroups.JobGroup | None) -> None:
        self.group = group
        self._client = client
        self._container = container
        self._pid: int | None = None
        self._last = cgroups.Usage()

    def look(self) -> None:
        """Note the numbers of now, where nothing outlives the container."""
        if self.group is not None:
            return
        with contextlib.suppress(*ENGINE_AWAY):
            if self._pid is None:
                self._pid = self._client.inspect_container(self._container)["State"]["Pid"]
            seen = cgroups.read_usage_of(self._pid) if self._pid else cgroups.Usage()
            if seen != cgroups.Usage():
                self._last = seen

    def read(self) -> cgroups.Usage:
        """The numbers after the end."""
        return self._last if self.group is None else self.group.usage()


def _moment(text: str) -> float:
    """Epoch seconds of the engine's RFC 3339 time, which has nanoseconds."""
    whole, _, rest = text.partition(".")
    digits = "".join(c for c in rest[:9] if c.isdigit())
    base = datetime.fromisoformat(whole.rstrip("Z") + "+00:00").timestamp()
    return base + (int(digits) / 10 ** len(digits) if digits else 0.0)

