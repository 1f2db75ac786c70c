"""What a machine that went down leaves: containers that the engine, started again, calls exited (with 255)."""

from __future__ import annotations

from pathlib import Path


def booted_at() -> float | None:
    """When this machine was started, epoch seconds by its present clock; None where the kernel does not say."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), None)


def ended_with_machine(started: float, finished: float, booted: float | None) -> bool:
    """Whether a container that has ended did so because its machine went down.

    Args:
        started: when it was, as the engine says, epoch seconds.
        finished: when that was noted, epoch seconds; long before 0 where it never was. Nothing outlives a boot: an end
            that is noted after it is no end of the container's own.
        booted: start of the machine, epoch seconds, or None.
    """
    return booted is not None and started < booted and not 0 < finished < booted
