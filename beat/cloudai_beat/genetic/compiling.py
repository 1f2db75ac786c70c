"""Having the replay engine compiled before a search needs it.

Compiling takes half a minute on the first use on a machine; the machine code is kept on disk and read in a second from
then on. It is done in a process of its own, so that an epoch need not wait for it.

    python -m cloudai_beat.genetic.compiling

does it by hand.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np

from cloudai.scheduling.parameters import GAParams
from cloudai_beat.genetic.candidates import Case
from cloudai_beat.replay import Environment, Fleet, Workload


class Compilation:
    """Whether the engine is compiled, as far as this process knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def ready(self, wait_s: float) -> bool:
        """Whether it is, after at most `wait_s` seconds; it goes on behind that."""
        with self._lock:
            if self._ready:
                return True
            if self._process is None or self._process.poll() not in (None, 0):
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
            try:
                self._ready = self._process.wait(wait_s) == 0
            except subprocess.TimeoutExpired:
                return False
            return self._ready


#: Of this process.
COMPILATION = Compilation()


def compile_now() -> None:
    """Replay one task."""
    one = np.ones(1)
    workload = Workload.of(one, one, 2 * one, np.zeros(1, dtype=np.int64), cpu_milli=np.full(1, 1000))
    fleet = Fleet.of(np.full(1, 1000))
    Case(workload, fleet, Environment.plain(workload, fleet)).run(GAParams())


if __name__ == "__main__":
    compile_now()
