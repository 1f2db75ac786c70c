"""Runs one server and ends it when the process that asked for it is gone.

Started as a program of its own: `python tether.py PARENT_PID GRACE_S COMMAND...`, with a pipe from the parent
on standard input. It prints the server's pid, then waits: for the server to end by itself, for the pipe to
close (the parent said stop, or was killed), or for the parent to vanish while a child that it forked still
holds the pipe open.

The kernel's own tie, PR_SET_PDEATHSIG, binds to the parent's *thread*; here the parent of the server is this
single thread, so the tie holds the other way too: should the tether be killed, the server is told to end.
Nothing is imported but the standard library, to start fast.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys

#: How often the parent and the server are looked at, seconds; a closed pipe is seen at once.
_LOOK_EVERY_S = 0.25

_PR_SET_PDEATHSIG = 1


def _end_with_tether() -> None:
    """In the server's process, before it starts: SIGTERM when the tether dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _parent_is_gone(parent: int) -> bool:
    readable, _, _ = select.select([sys.stdin.fileno()], [], [], _LOOK_EVERY_S)
    if readable and not os.read(sys.stdin.fileno(), 1):
        return True
    return os.getppid() != parent


def main(parent: int, grace_s: float, command: list[str]) -> int:
    """Run `command` until it ends or `parent` is gone; the command's exit code, negative for a signal.

    Once told to end (SIGTERM), the command has `grace_s` seconds before it is killed.
    """

    def leave(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    # The parent's lock on the folder comes in as the one other open descriptor and goes on to the server,
    # so the folder stays locked for as long as either lives.
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=_end_with_tether, close_fds=False
    )
    try:
        print(server.pid, flush=True)
        while server.poll() is None and not _parent_is_gone(parent):
            pass
    finally:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(grace_s)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    return server.returncode


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]) & 0xFF)
