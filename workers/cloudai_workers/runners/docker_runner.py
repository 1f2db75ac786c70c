"""Runs jobs as containers of a Docker-compatible engine, with hard limits and safe defaults.

One run costs the five round trips of a bare run (create, start, wait, logs, remove) and one more, which tells the
engine's own times of start and finish and whether memory ran out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound

from cloudai.containers.errors import EngineUnavailable, Superseded
from cloudai.containers.result import ContainerResult
from cloudai_workers.pause_notes import PauseNotes
from cloudai_workers.runners.artefacts import Artefacts, JobArtefacts
from cloudai_workers.runners.attempt_container import AttemptContainer, adopted, first_name, group_of, is_there, made
from cloudai_workers.runners.base import Job, LiveJob, StopHandle, attempt_of, job_name
from cloudai_workers.runners.cgroups import JobGroup
from cloudai_workers.runners.container_config import container_config
from cloudai_workers.runners.container_output import read_output
from cloudai_workers.runners.container_usage import ContainerUsage
from cloudai_workers.runners.engine import RETRY_S, Engine, moment
from cloudai_workers.runners.engine_errors import ENGINE_AWAY, create_failure, explanation
from cloudai_workers.runners.judgement import judged, raise_if_stopped, stopped_error
from cloudai_workers.runners.kept_logs import KeptLogs
from cloudai_workers.runners.labels import ATTEMPT_LABEL, NODE_LABEL, TASK_LABEL
from cloudai_workers.runners.policy import NodePolicy, admit
from cloudai_workers.runners.watch import Outcome, Watch

log = logging.getLogger(__name__)

#: Seconds that a killed container may take to end.
KILL_TIMEOUT_S = 30.0
#: What a run took at least, seconds. The engine stamps a start once it knows of it, so one that ended at once may have
#: ended before it began.
SHORTEST_RUN_S = 0.001


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
        begin_grace_s: float = 5.0,
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
            engine_grace_s: how long a run waits for an engine that goes away under it to come back.
            begin_grace_s: how long a run waits for an engine that is away when it is to begin: then another node may
                have it.
            max_connections: connections kept open to the engine: three for each job at once is enough.
            notes: where it is noted how long jobs were paused, for a later incarnation of the node.
            work_dir: where jobs' inputs and outputs are while they run, a folder that the engine sees under the same
                path; a restarted node must be given the same one. None: such jobs are refused.
            still_ours: whether this incarnation still looks after the node's jobs.

        """
        self._namespace = namespace
        self._engine = Engine(node=node, namespace=namespace, url=url, max_connections=max_connections)
        self._policy = policy or NodePolicy()
        self._kept_logs = kept_logs
        self._engine_grace_s = engine_grace_s
        self._begin_grace_s = begin_grace_s
        self._notes = notes
        self._still_ours = still_ours
        self._watches: dict[tuple[str, int], Watch] = {}
        self._artefacts = Artefacts(work_dir, namespace, node)
        self._with_artefacts: set[str] = set()

    def check(self) -> str | None:
        """Why no container can be run here, or None."""
        return self._engine.check()

    def notices(self) -> list[str]:
        """What the engine does not enforce."""
        return self._engine.notices()

    def home(self) -> str:
        """The engine's own id; see `Runner.home`."""
        return self._engine.home()

    # --- one run

    def run(self, job: Job, control: StopHandle) -> ContainerResult:
        """Run one attempt in a container; see `Runner.run`."""
        admitted = admit(job.spec, self._policy)
        raise_if_stopped(control)
        engine = self._engine
        name = job_name(job.task_id, job.attempt)
        # A job that is here already waits for this engine longer than one that another node may run as well.
        grace_s = self._engine_grace_s if job.adopts else self._begin_grace_s
        engine.patiently(engine.reach, name, control, grace_s)
        group = JobGroup(name) if engine.job_groups else None
        artefacts = self._artefacts.of(name, admitted)
        config = container_config(
            job, admitted, self._namespace, engine.cores, group.path if group else None,
            artefacts.mounts() if artefacts else (),
        )  # fmt: skip
        container: AttemptContainer | None = None
        self._with_artefacts.add(name)
        try:
            container = adopted(engine, job, name, self._notes)
            if container is not None:
                group = group_of(engine, container.id)
                artefacts = self._artefacts.of(first_name(engine, container.id), admitted)
            else:
                if artefacts is not None and not is_there(engine, name):
                    artefacts.prepare(job, lambda: raise_if_stopped(control))
                container = engine.patiently(
                    lambda: made(engine, job, control, name, config), name, control, grace_s
                )
            result = self._run_container(job, control, container, group)
            return result if artefacts is None else _kept(job, control, artefacts, result)
        except APIError as error:
            raise create_failure(error) from error
        except ENGINE_AWAY as error:
            raise EngineUnavailable(explanation(error)) from error
        finally:
            self._with_artefacts.discard(name)
            self._clean_up(name, container, group, artefacts)

    def _run_container(
        self, job: Job, control: StopHandle, container: AttemptContainer, group: JobGroup | None
    ) -> ContainerResult:
        raise_if_stopped(control)
        watch = Watch(control, job.spec.timeout)
        key = (job.task_id, job.attempt)
        self._watches[key] = watch
        try:
            self._begin(container, job_name(*key), watch)
            usage = ContainerUsage(self._engine, container.id, group)
            if group is not None and not group.exists():
                # The engine's groups are not those that we see (this process is in a container itself).
                self._engine.job_groups = False
                usage.group = None
            threading.Thread(
                target=self._await_end, args=(container.id, watch), name=f"wait-{job.task_id}", daemon=True
            ).start()
            outcome = watch.wait(usage.look)
            if not self._still_ours():
                raise Superseded("a new incarnation of this node looks after it")
            if outcome is not Outcome.ENDED:
                self._engine.kill(container.id)
                if not watch.wait_ended(KILL_TIMEOUT_S):
                    raise EngineUnavailable(f"the container did not end within {KILL_TIMEOUT_S:.0f} s of its kill")
        finally:
            del self._watches[key]
        state = self._engine.inspect(container.id)["State"]
        if state["Status"] in ("running", "paused"):
            raise EngineUnavailable(f"the engine went away for more than {self._engine_grace_s:.0f} s")
        measured = usage.read()
        files = self._kept_logs.files(*key) if self._kept_logs is not None else None
        stdout, stderr = read_output(self._engine.output(container.id, follow=False), job.limits, files)
        result = ContainerResult(
            exit_code=state["ExitCode"],
            stdout_tail=stdout.text(),
            stderr_tail=stderr.text(),
            stdout_truncated=stdout.truncated,
            stderr_truncated=stderr.truncated,
            waiting_s=job.waiting_s,
            pull_s=container.pull_s,
            run_s=max(SHORTEST_RUN_S, moment(state["FinishedAt"]) - moment(state["StartedAt"]) - watch.paused_s),
            peak_memory=measured.peak_memory,
            cpu_seconds=measured.cpu_seconds,
            node=job.node,
            attempt=job.attempt,
            container_id=container.id,
            runner=self.name,
        )
        return judged(result, outcome, control, job, out_of_memory=bool(state["OOMKilled"]))

    def _begin(self, container: AttemptContainer, name: str, watch: Watch) -> None:
        """Start the container, or let one that was there go on."""
        if container.found is None or container.found["Status"] == "created":
            self._engine.client.start(container.id)
            # A busy engine takes seconds for that: they are no part of the job's timeout.
            watch.begin()
            return
        paused_s = self._notes.resumed(name) if self._notes is not None else 0.0
        watch.begin(max(0.0, time.time() - moment(container.found["StartedAt"])), paused_s)
        if container.found["Status"] == "exited":
            watch.ended()  # in time, however late it is now
        elif container.found["Status"] == "paused":
            self._engine.client.unpause(container.id)

    def _await_end(self, container: str, watch: Watch) -> None:
        """In a thread of its own: the engine's answer to `wait` comes when the container has ended."""
        lost_at: float | None = None
        while True:
            try:
                self._engine.client.wait(container, timeout=None)
                break
            except NotFound:
                break
            except ENGINE_AWAY:
                # With live-restore the container survives its engine: ask again until the engine is back.
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self._engine_grace_s:
                    break
                time.sleep(RETRY_S)
        watch.ended()

    def _clean_up(
        self, name: str, container: AttemptContainer | None, group: JobGroup | None, artefacts: JobArtefacts | None
    ) -> None:
        if not self._still_ours():
            return
        if self._notes is not None:
            self._notes.forget(name)
        if container is not None:
            try:
                self._engine.remove(container.id)
            except ENGINE_AWAY as error:
                log.warning(
                    "container-not-removed container=%s: remove it by hand, or start the node again (%s)",
                    container.id, explanation(error),
                )  # fmt: skip
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
            paused = self._engine.pause(job_name(task_id, attempt))
        finally:
            if not paused and watch is not None:
                watch.resume()
        if paused and self._notes is not None:
            self._notes.paused(job_name(task_id, attempt), ago_s)
        return paused

    def resume(self, task_id: str, attempt: int) -> bool:
        """Thaw a container; see `Runner.resume`."""
        if not self._engine.unpause(job_name(task_id, attempt)):
            return False
        if watch := self._watches.get((task_id, attempt)):
            watch.resume()
        if self._notes is not None:
            self._notes.resumed(job_name(task_id, attempt))
        return True

    def kill(self, task_id: str, attempt: int) -> bool:
        """Kill and remove a container; see `Runner.kill`."""
        name = job_name(task_id, attempt)
        group = None
        # Not Engine.remove: whose removal it is decides here (folders go with ours only, and False is not there).
        try:
            group, artefacts = group_of(self._engine, name), first_name(self._engine, name)
            self._engine.client.remove_container(name, force=True, v=True)
            self._artefacts.remove(artefacts)
        except NotFound:
            return False
        except APIError as error:
            if error.status_code != 409:  # somebody is removing it already
                raise
        if group is not None:
            group.remove()
        if self._notes is not None:
            self._notes.forget(name)
        return True

    def logs(self, task_id: str, follow: bool = False) -> Iterator[bytes]:
        """Output of a task's latest container, or what the log folder kept of it; see `Runner.logs`."""
        found = _live_jobs(self._engine.containers({TASK_LABEL: task_id}))
        if found:
            latest = max(found, key=lambda job: job.attempt)
            return (data for _, data in self._engine.output(latest.container_id, follow=follow))
        if self._kept_logs is None:
            raise LookupError(f"this node has no output of task {task_id}")
        return self._kept_logs.read(task_id)

    def adopt(self) -> list[LiveJob]:
        """Containers of this node, by their labels; see `Runner.adopt`."""
        rows = self._engine.containers()
        first_names = {job_name(row["Labels"][TASK_LABEL], int(row["Labels"][ATTEMPT_LABEL])) for row in rows}
        self._artefacts.remove_others(first_names | self._with_artefacts)
        ended = {row["Id"] for row in rows if row["State"] == "exited"}
        return [
            replace(job, cut_off=job.container_id in ended and self._engine.ended_with_machine(job.container_id))
            for job in _live_jobs(rows)
        ]

    def close(self) -> None:
        """Close the connections to the engine; see `Runner.close`."""
        self._engine.close()


def _kept(job: Job, control: StopHandle, artefacts: JobArtefacts, result: ContainerResult) -> ContainerResult:
    """Keep the outputs of a job that has succeeded, unless it is stopped meanwhile."""

    def check() -> None:
        if control.reason is not None:
            raise stopped_error(control, result)

    return artefacts.keep(job, job_name(job.task_id, job.attempt), result, check)


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
