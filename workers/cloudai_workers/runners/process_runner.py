"""Runs jobs as local processes: the embedded default where no container engine answers.

The job's command runs below a small supervisor (supervisor.py) that leads a session of its own; what a restarted node
needs to find it again is in the job's folder (process_state.py).
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from cloudai.containers.errors import EngineUnavailable, Refused, Superseded
from cloudai.containers.result import ContainerResult
from cloudai_workers.pause_notes import PauseNotes
from cloudai_workers.runners import cgroups
from cloudai_workers.runners.base import Job, LiveJob, StopHandle, attempt_of, job_name
from cloudai_workers.runners.judgement import judged, raise_if_stopped
from cloudai_workers.runners.kept_logs import KeptLogs
from cloudai_workers.runners.policy import NodePolicy, admit
from cloudai_workers.runners.process_output import both_output, chunks, follow_output, tail_output
from cloudai_workers.runners.process_state import (
    JobFolder,
    ProcessState,
    alive,
    await_end,
    boot_id,
    drop_oldest,
    end_descriptor,
    folders,
    signal_job,
)
from cloudai_workers.runners.supervisor import Supervisor
from cloudai_workers.runners.watch import Outcome, Watch

log = logging.getLogger(__name__)

#: Seconds that killed processes may take to end.
KILL_TIMEOUT_S = 30.0


class ProcessRunner:
    """Runs each job as a process group of its own; see `Runner`. The image is checked but not used."""

    name = "process"

    def __init__(
        self,
        *,
        node: str,
        work_dir: Path,
        namespace: str = "cloudai",
        policy: NodePolicy | None = None,
        kept_logs: KeptLogs | None = None,
        notes: PauseNotes | None = None,
        still_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare a runner.

        Args:
            node: name of this node.
            work_dir: folder for the jobs' state and working folders; a restarted node must be given the same one.
            namespace: keeps fleets on one machine apart.
            policy: the operator's allowlists.
            kept_logs: where the full output of each run is kept; None keeps it only while the run lasts.
            notes: where it is noted how long jobs were paused, for a later incarnation of the node.
            still_ours: whether this incarnation still looks after the node's jobs.

        """
        self._node = node
        self._namespace = namespace
        self._root = work_dir / "processes"
        self._policy = policy or NodePolicy()
        self._kept_logs = kept_logs
        self._notes = notes
        self._still_ours = still_ours
        self._job_groups = cgroups.JobGroup.usable()
        self._watches: dict[tuple[str, int], Watch] = {}

    def check(self) -> str | None:
        """Why no process can be run here, or None."""
        if sys.platform != "linux":
            return f"the process runner needs Linux; this is {sys.platform}"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return f"the folder for jobs cannot be made: {error}"
        return None

    def notices(self) -> list[str]:
        """What running without containers means on this machine."""
        said = [
            "jobs run as local processes: no image is used, files and network are the machine's own",
            "storage is counted when a job is placed, not enforced",
        ]
        enforced: frozenset[str] = frozenset()
        if self._job_groups:
            probe = cgroups.JobGroup(f"probe-{os.getpid()}")
            enforced = probe.create(cpu_milli=1000, memory_bytes=64 << 20, pids=64)
            probe.remove()
        missing = sorted({"cpu", "memory", "pids"} - enforced)
        if missing:
            said.append(f"not enforced on jobs, because control groups are not writable: {', '.join(missing)}")
        return said

    def home(self) -> str:
        """This machine until it boots again, and the folder; see `Runner.home`."""
        return f"{boot_id()}:{self._root.resolve()}"

    # --- one run

    def run(self, job: Job, control: StopHandle) -> ContainerResult:
        """Run one attempt as a process; see `Runner.run`."""
        admitted = admit(job.spec, self._policy)
        if job.spec.volumes:
            raise Refused("volumes: the process runner cannot mount; this node runs jobs without containers")
        if job.spec.inputs or job.spec.outputs:
            raise Refused("inputs, outputs: the process runner cannot mount; this node runs jobs without containers")
        if job.spec.user is not None and os.geteuid() != 0:
            raise Refused(f"user {job.spec.user}: only a node that runs as root can change the user")
        if job.spec.command is None:
            raise Refused("command: the process runner has no image to take a command from; give one")
        raise_if_stopped(control)
        folder = self._adopted(job) or JobFolder(self._root / job_name(job.task_id, job.attempt))
        name = folder.path.name
        group = cgroups.JobGroup(name) if self._job_groups else None
        watch = Watch(control, job.spec.timeout)
        supervisor: Supervisor | None = None
        try:
            state = self._claim_folder(folder)
            if state is None:
                supervisor = Supervisor(job, job.spec.command, admitted, folder, group)
                raise_if_stopped(control)
                state = self._let_go(job, folder, supervisor, watch)
            else:
                self._attach(name, state, watch)
            return self._watch_over(job, control, folder, group, watch, state, supervisor)
        finally:
            if self._still_ours():
                if supervisor is not None:
                    supervisor.end()
                if group is not None:
                    group.kill()
                    group.remove()
                folder.remove()
                if self._notes is not None:
                    self._notes.forget(name)

    def _adopted(self, job: Job) -> JobFolder | None:
        """The folder that an earlier attempt left, this attempt's from now on; None: there is none."""
        found = self._find(job.task_id, job.adopts) if job.adopts else None
        if found is None:
            return None
        folder, state = found
        folder.write_state(replace(state, attempt=job.attempt))
        return folder

    def _claim_folder(self, folder: JobFolder) -> ProcessState | None:
        """None when the folder is new and ours; else the state of the attempt that is there already."""
        self._root.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                folder.path.mkdir()
            except FileExistsError:
                state = folder.state()
                if state is not None:
                    return state
                folder.remove()  # a node died before that job was let go, so it never began
                continue
            return None

    def _let_go(self, job: Job, folder: JobFolder, supervisor: Supervisor, watch: Watch) -> ProcessState:
        state = supervisor.state(job, self._namespace)
        folder.write_state(state)
        self._watches[job.task_id, job.attempt] = watch
        watch.begin()
        supervisor.let_go()
        return state

    def _attach(self, name: str, state: ProcessState, watch: Watch) -> None:
        self._watches[state.task_id, state.attempt] = watch
        paused_s = self._notes.resumed(name) if self._notes is not None else 0.0
        watch.begin(max(0.0, time.time() - state.begun), paused_s)
        signal_job(name, state, signal.SIGCONT)  # a node that was dying may have paused it

    def _watch_over(
        self,
        job: Job,
        control: StopHandle,
        folder: JobFolder,
        group: cgroups.JobGroup | None,
        watch: Watch,
        state: ProcessState,
        supervisor: Supervisor | None,
    ) -> ContainerResult:
        try:
            outcome = self._await_end(job, folder, watch, state)
            run_s = watch.elapsed_s
        finally:
            del self._watches[job.task_id, job.attempt]
        status, used = supervisor.reap() if supervisor is not None else (None, cgroups.Usage())
        oom_kills = 0
        if group is not None:
            group.kill()
            oom_kills = group.oom_kills()
            exact = group.usage()
            used = cgroups.Usage(
                exact.peak_memory if exact.peak_memory is not None else used.peak_memory,
                exact.cpu_seconds if exact.cpu_seconds is not None else used.cpu_seconds,
            )
        exit_code = folder.exit_code()
        if exit_code is None:
            exit_code = status
        elif supervisor is None:
            run_s = max(0.0, folder.exit.stat().st_mtime - state.begun - watch.paused_s)
        if exit_code is None:
            if outcome is Outcome.ENDED:
                raise EngineUnavailable("the job ended while its node was away and left no exit code")
            exit_code = 128 + signal.SIGKILL
        stdout, stderr = (tail_output(path, job.limits.tail_bytes) for path in (folder.stdout, folder.stderr))
        self._keep_log(job, folder)
        result = ContainerResult(
            exit_code=exit_code,
            stdout_tail=stdout.text(),
            stderr_tail=stderr.text(),
            stdout_truncated=stdout.truncated,
            stderr_truncated=stderr.truncated,
            waiting_s=job.waiting_s,
            pull_s=0.0,
            run_s=run_s,
            peak_memory=used.peak_memory,
            cpu_seconds=used.cpu_seconds,
            node=job.node,
            attempt=job.attempt,
            container_id=str(state.pid),
            runner=self.name,
        )
        return judged(result, outcome, control, job, out_of_memory=oom_kills > 0)

    def _await_end(self, job: Job, folder: JobFolder, watch: Watch, state: ProcessState) -> Outcome:
        """Wait for the job's end, a stop or the time limit, and see to it that it has ended then."""
        descriptor = end_descriptor(state)
        if descriptor is None:
            watch.ended()
        else:

            def wait() -> None:
                await_end(descriptor)
                watch.ended()

            threading.Thread(target=wait, name=f"wait-{job.task_id}", daemon=True).start()
        outcome = watch.wait(lambda: self._bound_output(folder, job.limits.log_bytes))
        if not self._still_ours():
            raise Superseded("a new incarnation of this node looks after it")
        if outcome is not Outcome.ENDED:
            signal_job(folder.path.name, state, signal.SIGKILL)
            if not watch.wait_ended(KILL_TIMEOUT_S):
                raise EngineUnavailable(f"the job did not end within {KILL_TIMEOUT_S:.0f} s of its kill")
        return outcome

    def _bound_output(self, folder: JobFolder, log_bytes: int) -> None:
        for path in (folder.stdout, folder.stderr):
            if path.stat().st_size > log_bytes and not drop_oldest(path, log_bytes // 2):
                log.warning("output-unbounded file=%s reason=the file system cannot punch holes", path)

    def _keep_log(self, job: Job, folder: JobFolder) -> None:
        if self._kept_logs is None:
            return
        for source, target in zip(
            (folder.stdout, folder.stderr), self._kept_logs.files(job.task_id, job.attempt), strict=True
        ):
            with target.open("wb") as kept:
                kept.writelines(chunks(source))

    # --- from other threads and after a restart

    def _find(self, task_id: str, attempt: int) -> tuple[JobFolder, ProcessState] | None:
        """The folder of an attempt: by its name, or where the attempt adopted it, by what it says."""
        folder = JobFolder(self._root / job_name(task_id, attempt))
        state = folder.state()
        if state is not None and state.attempt == attempt:
            return folder, state
        for folder in folders(self._root):
            state = folder.state()
            if state is not None and (state.task_id, state.attempt) == (task_id, attempt):
                return folder, state
        return None

    def pause(self, task_id: str, attempt: int, ago_s: float = 0.0) -> bool:
        """Stop the process group; see `Runner.pause`."""
        found = self._find(task_id, attempt)
        if found is None or not signal_job(found[0].path.name, found[1], signal.SIGSTOP):
            return False
        if watch := self._watches.get((task_id, attempt)):
            watch.pause(ago_s)
        if self._notes is not None:
            self._notes.paused(found[0].path.name, ago_s)
        return True

    def resume(self, task_id: str, attempt: int) -> bool:
        """Let the process group go on; see `Runner.resume`."""
        found = self._find(task_id, attempt)
        if found is None or not signal_job(found[0].path.name, found[1], signal.SIGCONT):
            return False
        if watch := self._watches.get((task_id, attempt)):
            watch.resume()
        if self._notes is not None:
            self._notes.resumed(found[0].path.name)
        return True

    def kill(self, task_id: str, attempt: int) -> bool:
        """Kill the process group and remove its folder; see `Runner.kill`."""
        found = self._find(task_id, attempt)
        if found is None:
            return False
        folder, state = found
        descriptor = end_descriptor(state)
        signal_job(folder.path.name, state, signal.SIGKILL)
        if descriptor is not None:
            await_end(descriptor)
        if self._job_groups:
            group = cgroups.JobGroup(folder.path.name)
            group.kill()
            group.remove()
        if (task_id, attempt) not in self._watches:
            folder.remove()  # else `run` takes the result first
            if self._notes is not None:
                self._notes.forget(folder.path.name)
        return True

    def logs(self, task_id: str, follow: bool = False) -> Iterator[bytes]:
        """Output of a task's latest attempt, stream by stream; see `Runner.logs`."""
        live = [folder for folder in folders(self._root) if (s := folder.state()) and s.task_id == task_id]
        if live:
            latest = max(live, key=lambda folder: attempt_of(folder.path.name))
            return follow_output(latest) if follow else both_output(latest)
        if self._kept_logs is None:
            raise LookupError(f"this node has no output of task {task_id}")
        return self._kept_logs.read(task_id)

    def adopt(self) -> list[LiveJob]:
        """Jobs of this node, by their folders; see `Runner.adopt`."""
        found = []
        for folder in folders(self._root):
            state = folder.state()
            if state is None or (state.namespace, state.node) != (self._namespace, self._node):
                continue
            running = alive(state)
            # Its supervisor writes the exit code before it ends, unless it is killed too.
            cut_off = not running and folder.exit_code() is None
            found.append(LiveJob(state.task_id, state.attempt, state.node, running, str(state.pid), cut_off))
        return found

    def close(self) -> None:
        """Nothing is held open between runs; see `Runner.close`."""
