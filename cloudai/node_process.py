"""One node of a local cluster as a process: started, watched and ended by the cluster's owner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloudai.embedded import tether

#: How long a node may take to finish its jobs when its owner vanished, before it is killed, seconds.
ORPHAN_GRACE_S = 10.0

#: Wait for a killed process to be reaped, seconds.
_REAP_TIMEOUT_S = 10.0

_LOG_LINES_SHOWN = 15


class NodeProcess:
    """A Celery worker below a tether (embedded/tether.py), so that it ends when its owner does."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log_path: Path
    ) -> None:
        self.name = name
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._tether = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    tether.__file__,
                    str(os.getpid()),
                    str(ORPHAN_GRACE_S),
                    *command,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=log_path.parent,
                env=dict(environment),
                text=True,
                # Ctrl-C at the terminal is for the owner, which then ends its nodes in order.
                start_new_session=True,
            )
        assert self._tether.stdout is not None
        line = self._tether.stdout.readline().strip()
        self._pid = int(line) if line else None

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None once it has ended."""
        return self._pid if self.is_running() else None

    def is_running(self) -> bool:
        """Whether the worker's process is alive."""
        return self._tether.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker. Nothing happens when it has ended."""
        # The tether lives, so it has not reaped the worker and the pid is still the worker's.
        if self.is_running() and self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def wait(self, timeout_s: float) -> bool:
        """Whether the worker ended within the time."""
        try:
            self._tether.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """Kill the worker if it still runs, and close what was opened for it. May be repeated."""
        self.signal(signal.SIGKILL)
        if self._tether.stdin is not None:
            self._tether.stdin.close()
        self._tether.wait(_REAP_TIMEOUT_S)
        if self._tether.stdout is not None:
            self._tether.stdout.close()

    def log_end(self) -> str:
        """The last lines of the worker's log."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES_SHOWN:])
