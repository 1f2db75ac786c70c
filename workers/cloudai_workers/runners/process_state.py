"""The folder of one job run as a process: what a restarted node needs to find the job again.

<work_dir>/processes/<job name>/     made by mkdir, which is the fence against running an attempt twice
    state.json                       who it is; complete before the job may begin
    exit                             its exit code, written by the job's supervisor
    stdout, stderr                   its output
    work/                            its working folder
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from cloudai_workers.runners import cgroups

_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class ProcessState:
    """What identifies a job's process across restarts of the node."""

    #: The Celery task id.
    task_id: str
    #: Attempt number.
    attempt: int
    #: Name of the node that started it.
    node: str
    #: The fleet's namespace.
    namespace: str
    #: Process id of the supervisor, which is also its session and process group.
    pid: int
    #: Start of that process in clock ticks since boot: with the boot, it tells a reused pid apart.
    started_ticks: int
    #: Identity of the machine's boot.
    boot: str
    #: Epoch seconds when the job was let go.
    begun: float


class JobFolder:
    """One job's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / "work"
        self.exit = path / "exit"
        self.stdout = path / "stdout"
        self.stderr = path / "stderr"
        self._state = path / "state.json"

    def write_state(self, state: ProcessState) -> None:
        """Write the state in one step."""
        draft = self._state.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(state)))
        draft.replace(self._state)

    def state(self) -> ProcessState | None:
        """The state; None when the job never came so far as to begin."""
        try:
            return ProcessState(**json.loads(self._state.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def exit_code(self) -> int | None:
        """The exit code, or None while it is not written (whole)."""
        try:
            text = self.exit.read_text()
            return int(text) if text.endswith("\n") else None
        except (OSError, ValueError):
            return None

    def remove(self) -> None:
        """Remove the folder with all that the job left in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def folders(root: Path) -> Iterator[JobFolder]:
    """The folders of all jobs below a runner's root."""
    if root.is_dir():
        for path in sorted(root.iterdir()):
            if path.is_dir():
                yield JobFolder(path)


def boot_id() -> str:
    """Identity of the machine's present boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or only a zombie is left."""
    try:
        # The name, in parentheses, may hold anything; the fields after it are plain.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def alive(state: ProcessState) -> bool:
    """Whether the very process of a state still runs."""
    return state.boot == boot_id() and started_ticks(state.pid) == state.started_ticks


def signal_job(name: str, state: ProcessState, number: int) -> bool:
    """Signal the whole group of a live job, and what left it as far as the kernel's group `name` tells."""
    if not alive(state):
        return False
    pids = cgroups.JobGroup(name).pids()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(state.pid, number)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return True


def end_descriptor(state: ProcessState) -> int | None:
    """A descriptor that becomes readable when the process of a state ends; None when it has ended."""
    try:
        descriptor = os.pidfd_open(state.pid)
    except ProcessLookupError:
        return None
    if started_ticks(state.pid) not in (state.started_ticks, None):
        os.close(descriptor)  # the number belongs to another process by now
        return None
    return descriptor


def await_end(descriptor: int) -> None:
    """Block until the process of an `end_descriptor` has ended; closes it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
    os.close(descriptor)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def drop_oldest(path: Path, keep_bytes: int) -> bool:
    """Give the disk space of all but a file's last `keep_bytes` back, while a job still appends to it.

    The file keeps its length and gets a hole in front, so nothing that is written meanwhile is lost.
    Returns False when the file system cannot do it.
    """
    with path.open("r+b") as file:
        surplus = (os.fstat(file.fileno()).st_size - keep_bytes) // _BLOCK * _BLOCK
        if surplus <= 0:
            return True
        failed = _libc().fallocate(
            file.fileno(), _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(surplus)
        )
        return bool(failed == 0)


def first_data(descriptor: int, offset: int) -> int:
    """The first position at or after `offset` that is not in a hole; the file's end when there is none."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError:
        return os.lseek(descriptor, 0, os.SEEK_END)
