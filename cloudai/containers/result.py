"""What is known about one container run, as it travels back to the submitter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class ContainerResult:
    """The record of one attempt. Every number was measured; what could not be measured is None."""

    #: Exit code of the main process; 128 + n when signal n ended it.
    exit_code: int
    #: The last bytes of standard output, decoded, whole characters only.
    stdout_tail: str
    #: The last bytes of standard error, decoded, whole characters only.
    stderr_tail: str
    #: True when standard output held more than its tail shows.
    stdout_truncated: bool
    #: True when standard error held more than its tail shows.
    stderr_truncated: bool
    #: Seconds from submission to the claim by the node.
    waiting_s: float
    #: Seconds spent fetching the image; 0 when it was there.
    pull_s: float
    #: Seconds that the job itself ran, without pauses, image pull and clean-up.
    run_s: float
    #: Peak memory in bytes as the kernel charged it (page cache included), or None.
    peak_memory: int | None
    #: CPU time used, in core-seconds, or None.
    cpu_seconds: float | None
    #: Name of the node that ran it.
    node: str
    #: Attempt number, from 1.
    attempt: int
    #: The engine's id of the container, or the process id as text; "" if nothing was started.
    container_id: str
    #: Name of the runner: "docker" or "process".
    runner: str
    #: Where its outputs are kept, as path in the container -> URL.
    outputs: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ContainerResult:
        """The record read back; keys that this version does not know are left out.

        Raises:
            KeyError: a key is missing.

        """
        known = (f for f in fields(cls) if f.name in record or f.default_factory is MISSING)
        return cls(**{f.name: record[f.name] for f in known})
