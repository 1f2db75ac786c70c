"""Starting, watching and ending one embedded server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cloudai.embedded import tether
from cloudai.scheduling.errors import CloudAIError

#: How long a server may take to answer after its start, seconds.
START_TIMEOUT_S = 30.0

#: How long to wait, beyond the server's grace, for the tether to see it end, seconds.
_REAP_TIMEOUT_S = 10.0

#: Time between two looks at a server that is starting, seconds.
_LOOK_EVERY_S = 0.02

#: Starts that are tried when another process takes the free port first.
_PORT_ATTEMPTS = 5

#: How long a folder that is in use is waited for, seconds.
_LOCK_WAIT_S = 2.0

_LOG_LINES_SHOWN = 15


class EmbeddedServerError(CloudAIError):
    """An embedded server cannot run here; the message says why and what to do."""


class EmbeddedServer(ABC):
    """A server of our own on 127.0.0.1, with its data in one folder.

    It ends with `stop()`, with the `with` block, or when this process ends, however that happens (tether.py).
    Started again, it has the same data and the same port. One server at a time uses a folder.

    Args:
        folder: where its data, its configuration and its log are; made if it is missing.
        port: the port to listen on; 0 picks a free one.
    """

    #: What it is called in messages and in file names.
    title: str
    #: How long it may take to end in good order before it is killed, seconds.
    grace_s: float = 10.0

    def __init__(self, folder: Path | str, *, port: int = 0) -> None:
        self.folder = Path(folder).resolve()
        self._port = port
        self._tether: subprocess.Popen[str] | None = None
        self._pid: int | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The address that clients use."""

    @abstractmethod
    def _command(self, port: int) -> list[str]:
        """Write what the server needs into the folder; the command that runs it in the foreground."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server answers a request of its protocol."""

    @property
    def port(self) -> int:
        """The port that it listens on; 0 before the first start picked one."""
        return self._port

    @property
    def pid(self) -> int | None:
        """Process id of the server itself, None when it does not run."""
        return self._pid if self.is_running() else None

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self.folder / f"{self.title}.log"

    def is_running(self) -> bool:
        """Whether the server's process is alive."""
        return self._tether is not None and self._tether.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it answers. Nothing happens if it runs already.

        Raises:
            EmbeddedServerError: the extra is not installed, the folder is in use, the port is taken, or the
                server ended or did not answer within 30 s; the end of its log is in the message.
        """
        if self.is_running():
            return self
        self.stop()
        if os.name != "posix":
            raise EmbeddedServerError(
                f"{self.title}: the embedded servers run on Linux and macOS. "
                "Start a server of your own and set its URL (redis.url, optimiser.mongo_url)."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with _lock(self.folder, self.title) as lock:
            for attempt in range(1, _PORT_ATTEMPTS + 1):
                port = self._port or free_port()
                if self._start_on(port, lock):
                    self._port = port
                    return self
                if self._port or attempt == _PORT_ATTEMPTS:
                    break
        raise EmbeddedServerError(
            f"{self.title} did not start on port {port}. The end of {self.log_path}:\n{self._log_end()}"
        )

    def stop(self) -> None:
        """End the server in good order. Ends only what this object started; may be repeated."""
        if self._tether is None:
            return
        if self._tether.stdin is not None:
            self._tether.stdin.close()
        try:
            self._tether.wait(self.grace_s + _REAP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._tether.stdout is not None:
            self._tether.stdout.close()
        self._tether = None
        self._pid = None

    def kill(self) -> None:
        """End the server at once with SIGKILL, as a crash would; `start()` brings it back."""
        if self._tether is None or self._pid is None:
            return
        if self._tether.poll() is None:
            # The tether lives, so it has not reaped the server and the pid is still the server's.
            os.kill(self._pid, signal.SIGKILL)
        self._tether.wait(_REAP_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_on(self, port: int, lock: IO[str]) -> bool:
        """Start on one port; False if the server ended or kept silent."""
        command = self._command(port)
        self._port, before = port, self._port
        with self.log_path.open("ab") as log:
            self._tether = subprocess.Popen(
                [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(self.grace_s), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                text=True,
                pass_fds=(lock.fileno(),),
                # Ctrl-C at the terminal is for the program that started us, which then ends us last.
                start_new_session=True,
            )
        answered = False
        try:
            answered = self._wait_for_answer()
        finally:
            if not answered:
                self.stop()
                self._port = before
        return answered

    def _wait_for_answer(self) -> bool:
        assert self._tether is not None
        assert self._tether.stdout is not None
        pid = self._tether.stdout.readline().strip()
        self._pid = int(pid) if pid else None
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.is_running() and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(_LOOK_EVERY_S)
        return False

    def _log_end(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES_SHOWN:])


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _lock(folder: Path, title: str) -> IO[str]:
    """Take the folder for one server; the lock is held as long as a process has the file open.

    Raises:
        EmbeddedServerError: another server uses the folder.
    """
    import fcntl  # not on Windows, where start() has refused by now

    lock = (folder / f"{title}.lock").open("a", encoding="utf-8")
    # What a server that has just ended had forked, to write its file, may still hold it for a moment.
    end = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < end:
                time.sleep(_LOOK_EVERY_S)
                continue
            lock.close()
            raise EmbeddedServerError(
                f"{folder} is in use by another {title} server. Stop that one, or choose another folder."
            ) from None
        return lock
