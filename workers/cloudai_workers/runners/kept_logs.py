"""The folder that keeps the whole output of every run: two files a run, until they are too old or too many.

<log_dir>/<job name>.out     standard output
<log_dir>/<job name>.err     standard error
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cloudai_workers.runners.base import job_name

log = logging.getLogger(__name__)

#: Endings of a run's files: standard output, standard error.
ENDINGS = (".out", ".err")
#: Between two looks at what is to go, seconds.
PRUNE_EVERY_S = 60.0
_DAY_S = 86_400.0
_CHUNK = 65_536


class KeptLogs:
    """One node's folder. Safe for threads."""

    def __init__(self, folder: Path, *, keep_days: float = 30.0, keep_bytes: int = 10 << 30) -> None:
        """Nothing is made or removed yet.

        Args:
            folder: where the files are; made when the first one is.
            keep_days: files that nobody has written to for longer go.
            keep_bytes: above it the oldest go.
        """
        self._folder = folder
        self._keep_s = keep_days * _DAY_S
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._next_look = 0.0

    def files(self, task_id: str, attempt: int) -> tuple[Path, Path]:
        """Where standard output and standard error of an attempt go; the folder is made, and old files removed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        with self._lock:
            due, self._next_look = now >= self._next_look, max(self._next_look, now + PRUNE_EVERY_S)
        if due:
            self.prune(now)
        name = job_name(task_id, attempt)
        return self._folder / f"{name}{ENDINGS[0]}", self._folder / f"{name}{ENDINGS[1]}"

    def read(self, task_id: str) -> Iterator[bytes]:
        """The latest attempt's standard output, then its standard error. LookupError when nothing of it is kept."""
        before = job_name(task_id, 0)[:-1]
        attempts = [
            int(path.stem.removeprefix(before))
            for path in self._folder.glob(f"{before}*{ENDINGS[0]}")
            if path.stem.removeprefix(before).isdecimal()
        ]
        if not attempts:
            raise LookupError(f"this node has no output of task {task_id}")
        return self._chunks(f"{before}{max(attempts)}")

    def _chunks(self, name: str) -> Iterator[bytes]:
        for ending in ENDINGS:
            # A file may go while it is asked for.
            with contextlib.suppress(FileNotFoundError), (self._folder / f"{name}{ending}").open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk

    def prune(self, now: float) -> int:
        """Remove what is too old, then the oldest until the rest is small enough; returns how many files went.

        `now` in epoch seconds. Files of others in the folder are left alone.
        """
        found: list[tuple[float, int, Path]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith("cloudai-") and entry.name.endswith(ENDINGS):
                    with contextlib.suppress(FileNotFoundError):
                        stat = entry.stat(follow_symlinks=False)
                        found.append((stat.st_mtime, stat.st_blocks * 512, Path(entry.path)))
        kept = sum(size for _, size, _ in found)
        gone = 0
        for changed, size, path in sorted(found):
            if now - changed <= self._keep_s and kept <= self._keep_bytes:
                break
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            kept -= size
            gone += 1
        if gone:
            log.info(
                "logs-removed folder=%s files=%d: too old, or too many (node.log_keep_days, node.log_keep)",
                self._folder, gone,
            )  # fmt: skip
        return gone
