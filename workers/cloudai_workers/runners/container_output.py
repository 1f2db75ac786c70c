"""A container's whole output, read when it has ended: to files that keep it, and to the tails of the result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from cloudai_workers.runners.base import Limits
from cloudai_workers.runners.container_config import LOG_FILES
from cloudai_workers.runners.log_frames import STDOUT
from cloudai_workers.runners.tails import Tail

#: JSON around one line in the engine's log file, in bytes, at most; and how far escapes stretch a byte.
_LOG_LINE_EXTRA = 90
_LOG_STRETCH = 6


def read_output(
    frames: Iterable[tuple[int, bytes]], limits: Limits, files: tuple[Path, Path] | None
) -> tuple[Tail, Tail]:
    """Both streams' tails, standard output first, in bounded memory.

    Args:
        frames: stream and data, as the engine gives them.
        limits: the job's bounds.
        files: where the whole of each stream goes; None keeps it nowhere.

    """
    stdout, stderr = Tail(limits.tail_bytes), Tail(limits.tail_bytes)
    in_log_file = 0
    with contextlib.ExitStack() as closing:
        keep = [closing.enter_context(path.open("wb")) for path in files or ()]
        for stream, data in frames:
            (stdout if stream == STDOUT else stderr).feed(data)
            in_log_file += _LOG_STRETCH * len(data) + _LOG_LINE_EXTRA
            if keep:
                keep[0 if stream == STDOUT else 1].write(data)
    if in_log_file >= limits.log_bytes // LOG_FILES:
        # The engine may have dropped the oldest output, of either stream.
        stdout.lost_before = stderr.lost_before = True
    return stdout, stderr
