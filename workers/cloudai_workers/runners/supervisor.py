"""The supervisor of a job that runs as a process: a small shell that leads the job's session.

It waits for one line before it starts the job's command, so the job's state is on disk and its control group is set
before the job can do anything; when the node dies first, the line never comes and the job never begins. It writes the
exit code, so that a restarted node, which is not its parent, can take it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

from cloudai.containers.errors import CommandNotFound, EngineUnavailable
from cloudai_workers.runners.base import Job
from cloudai_workers.runners.cgroups import JobGroup, Usage
from cloudai_workers.runners.policy import Admitted
from cloudai_workers.runners.process_state import JobFolder, ProcessState, boot_id, started_ticks

#: Where a job's commands are looked for unless its env says otherwise.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The shell says "Killed" on its own standard error when a signal ends the command, so the job's goes through
# descriptor 3; in a subshell, because a redirection of the command itself would hold for that word too.
_SCRIPT = """\
IFS= read -r go || exit 125
ulimit -c 0
exit_file=$1
shift
exec 3>&2 2>/dev/null
(exec "$@" </dev/null 2>&3 3>&-)
code=$?
echo "$code" >"$exit_file"
exit "$code"
"""


class Supervisor:
    """One supervisor, a child of this process, from its start to its end."""

    def __init__(
        self, job: Job, command: tuple[str, ...], admitted: Admitted, folder: JobFolder, group: JobGroup | None
    ) -> None:
        """Start it, waiting, in the job's folder and with the job's limits set.

        Raises:
            CommandNotFound: there is no such command or user here.
            EngineUnavailable: no process can be started.

        """
        workdir = folder.work / (job.spec.workdir or "").lstrip("/")
        workdir.mkdir(parents=True)
        (folder.work / "tmp").mkdir(exist_ok=True)
        env = _environment(job, admitted, folder.work)
        program = shutil.which(workdir / command[0] if "/" in command[0] else command[0], path=env["PATH"])
        if program is None:
            raise CommandNotFound(f"{command[0]} is not an executable file in {env['PATH']}")
        user, _, user_group = (job.spec.user or "").partition(":")
        folder.exit.touch()
        if user:
            _give_to(user, user_group, folder)
        with folder.stdout.open("ab") as stdout, folder.stderr.open("ab") as stderr:
            try:
                self._child = subprocess.Popen(
                    ["/bin/sh", "-c", _SCRIPT, "sh", str(folder.exit), program, *command[1:]],
                    cwd=workdir,
                    env=env,
                    stdin=subprocess.PIPE,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                    user=_id_or_name(user),
                    group=_id_or_name(user_group),
                    extra_groups=[] if user else None,
                )
            except OSError as error:
                raise EngineUnavailable(f"no process can be started: {error}") from error
        if group is not None:
            group.create(job.reservation.cpu_milli, job.reservation.memory_kib * 1024, job.limits.pids)
            group.add(self._child.pid)

    def state(self, job: Job, namespace: str) -> ProcessState:
        """What a restarted node needs to find the job, which begins now. EngineUnavailable: it has ended already."""
        ticks = started_ticks(self._child.pid)
        if ticks is None:
            raise EngineUnavailable("the job's supervisor ended before the job began")
        return ProcessState(
            task_id=job.task_id,
            attempt=job.attempt,
            node=job.node,
            namespace=namespace,
            pid=self._child.pid,
            started_ticks=ticks,
            boot=boot_id(),
            begun=time.time(),
        )

    def let_go(self) -> None:
        """Let the job begin. EngineUnavailable: the supervisor is not there any more."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(b"\n")
            self._child.stdin.close()
        except BrokenPipeError as error:
            raise EngineUnavailable("the job's supervisor was ended before the job began") from error

    def reap(self) -> tuple[int, Usage]:
        """End what the job left running. Exit code as a shell gives it, and what the kernel says that all used."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)  # the zombie still holds the number
        _, status, used = os.wait4(self._child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._child.returncode = code
        # A process starts with the peak of the one that forked it, so only a higher peak is the job's own.
        inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = used.ru_maxrss * 1024 if used.ru_maxrss > inherited else None
        return (code if code >= 0 else 128 - code), Usage(peak, used.ru_utime + used.ru_stime)

    def end(self) -> None:
        """Kill it and all of its session; nothing happens when it has been reaped."""
        if self._child.returncode is not None:
            return
        if self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
        self.reap()


def _environment(job: Job, admitted: Admitted, home: Path) -> dict[str, str]:
    return {
        "PATH": DEFAULT_PATH,
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "LANG": "C.UTF-8",
        # Without it a job would see every GPU of the machine, reserved or not.
        "CUDA_VISIBLE_DEVICES": ",".join(job.reservation.gpu_devices),
        **dict(admitted.env),
    }


def _give_to(user: str, user_group: str, folder: JobFolder) -> None:
    owning_group = _id_or_name(user_group)
    try:
        for path in (folder.exit, folder.work, *folder.work.rglob("*")):
            shutil.chown(path, user=int(user) if user.isdecimal() else user)
            if owning_group is not None:
                shutil.chown(path, group=owning_group)
    except LookupError as error:
        raise CommandNotFound(f"user {user}: {error}") from error


def _id_or_name(user: str) -> int | str | None:
    return None if not user else int(user) if user.isdecimal() else user
