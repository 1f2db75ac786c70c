"""What is said when a configuration is refused."""

from __future__ import annotations

from cloudai.scheduling.errors import CloudAIError


class ConfigurationError(CloudAIError, ValueError):
    """The configuration is refused; nothing was started.

    `problems` has one line for each thing that is wrong: where it was set, its key, what was given and what
    is allowed. Mend them and start again; docs/configuration.md lists every setting.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems: tuple[str, ...] = problems

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"configuration refused: {self.problems[0]}"
        return "\n  ".join([f"configuration refused, {len(self.problems)} problems:", *self.problems])
