"""What is wrong with a trace or a fleet that a user gave: one message that names the place."""

from __future__ import annotations

from cloudai.scheduling.errors import CloudAIError


class TraceRefused(CloudAIError, ValueError):
    """A trace cannot be replayed; the message names the file, the line, what stands there and what is allowed."""

    def __init__(self, source: str, why: str, line: int | None = None) -> None:
        self.source = source
        self.why = why
        #: counted from 1; None: the file as a whole
        self.line = line
        super().__init__(source, why, line)

    def __str__(self) -> str:
        return f"{self.source}{f' line {self.line}' if self.line is not None else ''}: {self.why}"


class FleetRefused(CloudAIError, ValueError):
    """A fleet file is refused as a whole; every reason names its field."""

    def __init__(self, source: str, reasons: list[str]) -> None:
        self.source = source
        self.reasons = reasons
        super().__init__(source, reasons)

    def __str__(self) -> str:
        return f"{self.source}: " + "; ".join(self.reasons)
