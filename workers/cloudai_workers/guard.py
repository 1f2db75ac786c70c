"""The worker's end of its guardian (guardian.py): starts it, tells it of each renewal, starts it again if it died."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cloudai_workers.lease import Lease

logger = logging.getLogger(__name__)

#: Where this package lies: the guardian gets nothing else of the worker's import path.
_PACKAGES = str(Path(__file__).resolve().parents[1])
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from cloudai_workers.guardian import main; main(sys.argv[2])"
)
#: How long a guardian may take to answer before jobs are resumed, seconds; it may be waiting for the engine.
ANSWER_TIMEOUT_S = 35.0


class Guard:
    """One guardian process. All methods may be called from any thread; none raises."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Make a guard.

        Args:
            config: node, namespace, incarnation, folder, runner, engine (address), pauses.

        """
        self._config = config
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._sequence = 0
        self._answered = 0
        self._used = False
        self._closed = False
        self._last: bytes = b""
        os.register_at_fork(after_in_child=self._forget)

    def start(self) -> None:
        """Start the guardian. Without one, the jobs of a killed worker are nobody's until its node starts again."""
        with self._lock:
            self._start()

    def used(self) -> None:
        """The node is about to have jobs."""
        with self._lock:
            if not self._used:
                self._used = True
                self._send(b"used\n")

    def renewed(self, lease: Lease) -> None:
        """Tell of a renewal."""
        with self._lock:
            if self._closed:
                return
            if self._process is not None and self._process.poll() is not None:
                logger.warning("guardian-restarted node=%s: it had ended", self._config["node"])
                self._start()
            self._sequence += 1
            self._last = b"renew %d %.6f %.6f\n" % (self._sequence, lease.guard_at, lease.over_at)
            self._send(self._last)
            self._hear()

    def settled(self) -> bool:
        """Wait until the guardian has done with what it did before the last renewal; False: it does not answer."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        with self._lock:
            while self._socket is not None and self._answered < self._sequence:
                ahead = deadline - time.monotonic()
                if ahead <= 0:
                    logger.warning("guardian-silent node=%s: jobs are resumed without its word", self._config["node"])
                    return False
                poll = select.poll()
                poll.register(self._socket, select.POLLIN)
                poll.poll(ahead * 1000)
                self._hear()
        return True

    def close(self) -> None:
        """The worker leaves: the guardian ends by itself when no job is left."""
        with self._lock:
            self._closed = True
            self._disconnect()
            if self._process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(2.0)

    def _start(self) -> None:
        self._disconnect()
        ours, theirs = socket.socketpair()
        config = json.dumps({**self._config, "pid": os.getpid()})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, _PACKAGES, config],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            ours.close()
            logger.warning(
                "guardian-missing node=%s: if this worker is killed, its containers run on until the node starts "
                "again (%s)", self._config["node"], error,
            )  # fmt: skip
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket, self._answered = ours, self._sequence
        if self._used:
            self._send(b"used\n")
        if self._last:
            self._send(self._last)

    def _send(self, line: bytes) -> None:
        # A guardian that reads nothing must not hold the heart up; one that is gone is started again.
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(line)

    def _hear(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._disconnect()
            return
        whole = data.split(b"\n")[:-1]
        if whole:
            self._answered = max(self._answered, int(whole[-1]))

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _forget(self) -> None:
        # A pool's child must not hold the socket open when the worker is dead.
        if self._socket is not None:
            with contextlib.suppress(OSError):
                os.close(self._socket.detach())
