"""The output files of a job run as a process: their end, their whole, and following them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cloudai_workers.runners.process_state import JobFolder, alive, first_data
from cloudai_workers.runners.tails import Tail

#: Seconds between looks at a file that is followed.
FOLLOW_EVERY_S = 0.1


def tail_output(path: Path, limit: int) -> Tail:
    """The last `limit` bytes of a file."""
    tail = Tail(limit)
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - limit))
        tail.feed(file.read(limit))
    tail.lost_before = size > limit
    return tail


def chunks(path: Path) -> Iterator[bytes]:
    """What a file holds, in pieces; a hole in front is left out."""
    with path.open("rb") as file:
        file.seek(first_data(file.fileno(), 0))
        while chunk := file.read(65536):
            yield chunk


def both_output(folder: JobFolder) -> Iterator[bytes]:
    """Both streams of a job, one after the other."""
    yield from chunks(folder.stdout)
    yield from chunks(folder.stderr)


def follow_output(folder: JobFolder) -> Iterator[bytes]:
    """Both streams of a job as they grow, until it ends."""
    with contextlib.ExitStack() as closing:
        files = [closing.enter_context(path.open("rb")) for path in (folder.stdout, folder.stderr)]
        for file in files:
            file.seek(first_data(file.fileno(), 0))
        while True:
            state = folder.state()
            over = state is None or not alive(state)
            for file in files:
                while chunk := file.read(65536):
                    yield chunk
            if over:  # seen before the last read, so nothing is missed
                return
            time.sleep(FOLLOW_EVERY_S)
