"""Control groups of the kernel, versions 1 and 2: a group per job that outlives the job, and what it used.

A container's own group is gone the moment it ends, and what it used with it. A parent group of ours stays
until we remove it, so that peak memory and CPU time are exact for jobs of any length.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

#: Where the kernel shows its groups.
MOUNT = Path("/sys/fs/cgroup")
#: Our groups lie below this one, relative to the root of each hierarchy. It stays, so that nobody finds it
#: half removed.
ROOT = "/cloudai"
_CFS_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job used, as the kernel counted it; None where it did not."""

    #: Bytes.
    peak_memory: int | None = None
    #: Core-seconds.
    cpu_seconds: float | None = None


def is_unified(mount: Path = MOUNT) -> bool:
    """Whether this machine uses version 2."""
    return (mount / "cgroup.controllers").exists()


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def _keyed_number(path: Path, key: str) -> int | None:
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    except (OSError, ValueError):
        pass
    return None


def read_usage(group: str, mount: Path = MOUNT) -> Usage:
    """What the processes of a group used so far; `group` is the path below the hierarchy's root."""
    relative = group.lstrip("/")
    if is_unified(mount):
        micros = _keyed_number(mount / relative / "cpu.stat", "usage_usec")
        peak = _number(mount / relative / "memory.peak")
        return Usage(peak, None if micros is None else micros / 1e6)
    nanos = _number(mount / "cpuacct" / relative / "cpuacct.usage")
    peak = _number(mount / "memory" / relative / "memory.max_usage_in_bytes")
    return Usage(peak, None if nanos is None else nanos / 1e9)


def read_usage_of(pid: int, mount: Path = MOUNT) -> Usage:
    """What the group of a live process used so far; empty when the process cannot be seen from here."""
    groups = groups_of(pid)
    if is_unified(mount):
        return read_usage(groups[""], mount) if groups.get("", "/") != "/" else Usage()
    memory, cpu = groups.get("memory", "/"), groups.get("cpuacct", "/")
    return Usage(
        read_usage(memory, mount).peak_memory if memory != "/" else None,
        read_usage(cpu, mount).cpu_seconds if cpu != "/" else None,
    )


def groups_of(pid: int | str) -> dict[str, str]:
    """Controller -> group of a process ("" is version 2's); empty when it cannot be read."""
    groups: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                groups[controller] = path
    return groups


class JobGroup:
    """The group of one job, below `ROOT`. The engine may create it, or `create` does."""

    def __init__(self, name: str, mount: Path = MOUNT) -> None:
        #: Path below the root of each hierarchy, as an engine takes for a parent.
        self.path = f"{ROOT}/{name}"
        self._mount = mount
        self._unified = is_unified(mount)

    @staticmethod
    def usable(mount: Path = MOUNT) -> bool:
        """Whether this process may make groups."""
        return os.access(mount if is_unified(mount) else mount / "memory", os.W_OK)

    def _folders(self) -> list[Path]:
        relative = self.path.lstrip("/")
        if self._unified:
            return [self._mount / relative]
        # cpu and cpuacct are often links to one hierarchy of both.
        with contextlib.suppress(OSError):
            hierarchies = {entry.resolve() for entry in self._mount.iterdir() if entry.is_dir()}
            return sorted(hierarchy / relative for hierarchy in hierarchies)
        return []

    def exists(self) -> bool:
        """Whether the group is there, seen from this process."""
        return any(folder.is_dir() for folder in self._folders())

    def create(self, cpu_milli: int, memory_bytes: int, pids: int) -> frozenset[str]:
        """Make the group with hard limits and return those in force: a subset of "cpu", "memory", "pids"."""
        return (
            self._create_unified(cpu_milli, memory_bytes, pids)
            if self._unified
            else self._create_v1(cpu_milli, memory_bytes, pids)
        )

    def _create_v1(self, cpu_milli: int, memory_bytes: int, pids: int) -> frozenset[str]:
        relative = self.path.lstrip("/")
        quota = max(1000, cpu_milli * _CFS_PERIOD_US // 1000)  # the kernel refuses less than 1 ms
        settings = {
            "memory": (
                ("memory.limit_in_bytes", memory_bytes),
                ("memory.memsw.limit_in_bytes", memory_bytes),
            ),
            "cpu": (("cpu.cfs_period_us", _CFS_PERIOD_US), ("cpu.cfs_quota_us", quota)),
            "pids": (("pids.max", pids),),
            "cpuacct": (),
        }
        enforced = set()
        for controller, values in settings.items():
            folder = self._mount / controller / relative
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for file, value in values:
                    if file != "memory.memsw.limit_in_bytes" or (folder / file).exists():
                        (folder / file).write_text(str(value))
            except OSError:
                continue
            if values:
                enforced.add(controller)
        return frozenset(enforced)

    def _create_unified(self, cpu_milli: int, memory_bytes: int, pids: int) -> frozenset[str]:
        folder = self._mount / self.path.lstrip("/")
        with contextlib.suppress(OSError):
            folder.parent.mkdir(exist_ok=True)
            for above in (self._mount, folder.parent):
                for controller in ("cpu", "memory", "pids"):
                    with contextlib.suppress(OSError):
                        (above / "cgroup.subtree_control").write_text(f"+{controller}")
            folder.mkdir(exist_ok=True)
        quota = max(1000, cpu_milli * _CFS_PERIOD_US // 1000)
        enforced = set()
        for controller, values in (
            ("cpu", (("cpu.max", f"{quota} {_CFS_PERIOD_US}"),)),
            ("memory", (("memory.max", str(memory_bytes)), ("memory.swap.max", "0"))),
            ("pids", (("pids.max", str(pids)),)),
        ):
            with contextlib.suppress(OSError):
                for file, text in values:
                    if file != "memory.swap.max" or (folder / file).exists():
                        (folder / file).write_text(text)
                enforced.add(controller)
        return frozenset(enforced)

    def _own_folders(self) -> list[Path]:
        relative = self.path.lstrip("/")
        if self._unified:
            return [self._mount / relative]
        return [self._mount / controller / relative for controller in ("memory", "cpu", "pids", "cpuacct")]

    def add(self, pid: int) -> None:
        """Move a process into the group, where it could be made."""
        for folder in self._own_folders():
            with contextlib.suppress(OSError):
                (folder / "cgroup.procs").write_text(str(pid))

    def usage(self) -> Usage:
        """What was used in the group since it was made."""
        return read_usage(self.path, self._mount)

    def oom_kills(self) -> int:
        """How often the kernel ended a process of the group for want of memory."""
        relative = self.path.lstrip("/")
        if self._unified:
            return _keyed_number(self._mount / relative / "memory.events", "oom_kill") or 0
        return _keyed_number(self._mount / "memory" / relative / "memory.oom_control", "oom_kill") or 0

    def pids(self) -> list[int]:
        """Processes in the group now."""
        for folder in self._own_folders():
            with contextlib.suppress(OSError, ValueError):
                return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
        return []

    def kill(self) -> None:
        """End every process of the group, also one that left the session, or that forks meanwhile."""
        for _ in range(100):
            pids = self.pids()
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)  # a killed process leaves the group when the kernel has torn it down

    def remove(self) -> None:
        """Remove the group, where it is; may be called when it never was."""
        for folder in self._folders():
            with contextlib.suppress(OSError):
                folder.rmdir()
