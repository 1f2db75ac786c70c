"""The errors that CloudAI raises.

    CloudAIError
    ├── InvalidRequest          a field of a submission is wrong; nothing was written
    ├── Unplaceable             it asks for more than any node has, and the caller wanted to be told
    ├── ClusterFull             too many unfinished tasks; submit again when some have ended
    ├── DuplicateTask           a task with this id is unfinished already
    ├── StateUnavailable        Redis did not do what was promised, such as writing a task to disk in time
    ├── NodeRefused             another live node has this name
    ├── InvalidParameters       parameters that are refused as a whole
    ├── ConfigurationError      a setting is wrong
    ├── CannotDecide            a scheduler gives the decision to the fallback
    └── ContainerError ...      how a container job can fail: see cloudai.containers.errors

Those of scheduling and containers are defined there, so that these stay free of everything else.
"""

from __future__ import annotations

from cloudai.containers.errors import ContainerError
from cloudai.scheduling.errors import CannotDecide, CloudAIError, InvalidParameters, InvalidRequest, Unplaceable
from cloudai.settings import ConfigurationError

__all__ = [
    "CannotDecide",
    "CloudAIError",
    "ClusterFull",
    "ConfigurationError",
    "ContainerError",
    "DuplicateTask",
    "InvalidParameters",
    "InvalidRequest",
    "NodeRefused",
    "StateUnavailable",
    "Unplaceable",
]


class ClusterFull(CloudAIError):
    """Too many tasks are unfinished (limits.max_in_flight). Nothing was written: submit again when some have ended."""

    @property
    def accepted(self) -> tuple[str, ...]:
        """Ids of the tasks of a bulk submission that were accepted before."""
        return tuple(self.args[1]) if len(self.args) > 1 else ()

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else str(self.__doc__)


class DuplicateTask(CloudAIError):
    """A task with this id is unfinished already. Nothing was written: leave task_id out, or wait for that one."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else str(self.__doc__)


class StateUnavailable(CloudAIError):
    """Redis did not do what was promised: look at the server."""


class NodeRefused(CloudAIError):
    """Another live node has this name. Give this one another name (`-n` or node.name), or stop the other one."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else str(self.__doc__)
