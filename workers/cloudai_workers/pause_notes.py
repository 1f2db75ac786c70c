"""How long each job has been paused, noted beside it: whoever pauses it may die before it goes on.

The standard library alone, for the guardian. Notes are for the record of run times only: what cannot be written or read
is left out.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from cloudai_workers.lease import now_s


class PauseNotes:
    """One small file for each job that was ever paused: seconds in all, and since when (`now_s`) or "-"."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "paused"

    def paused(self, name: str, ago_s: float = 0.0) -> None:
        """The job of this name is paused, and has been for so many seconds; the first word counts."""
        total, since = self._read(name)
        if since is None:
            self._write(name, total, now_s() - ago_s)

    def resumed(self, name: str) -> float:
        """It goes on; returns how many seconds it has been paused in all."""
        total, since = self._read(name)
        if since is not None:
            total += max(0.0, now_s() - since)
            self._write(name, total, None)
        return total

    def renamed(self, old: str, new: str) -> None:
        """The job has another name from now on."""
        with contextlib.suppress(OSError):
            (self._folder / old).rename(self._folder / new)

    def forget(self, name: str) -> None:
        """The job is over."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def _read(self, name: str) -> tuple[float, float | None]:
        try:
            total, since = (self._folder / name).read_text(encoding="utf-8").split()
            return float(total), None if since == "-" else float(since)
        except (OSError, ValueError):
            return 0.0, None

    def _write(self, name: str, total: float, since: float | None) -> None:
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            text = f"{total:.6f} {'-' if since is None else f'{since:.6f}'}"
            (self._folder / name).write_text(text, encoding="utf-8")
