"""What a container used: exactly from a control group of ours, else as it was last seen while it lived."""

from __future__ import annotations

import contextlib

from cloudai_workers.runners import cgroups
from cloudai_workers.runners.engine import Engine
from cloudai_workers.runners.engine_errors import ENGINE_AWAY


class ContainerUsage:
    """The usage of one container."""

    def __init__(self, engine: Engine, container: str, group: cgroups.JobGroup | None) -> None:
        #: Outlives the container; None: its own group is looked at while it is there.
        self.group = group
        self._engine = engine
        self._container = container
        self._pid: int | None = None
        self._last = cgroups.Usage()

    def look(self) -> None:
        """Note the numbers of now, where nothing outlives the container."""
        if self.group is not None:
            return
        with contextlib.suppress(*ENGINE_AWAY):
            if self._pid is None:
                self._pid = self._engine.inspect(self._container)["State"]["Pid"]
            seen = cgroups.read_usage_of(self._pid) if self._pid else cgroups.Usage()
            if seen != cgroups.Usage():
                self._last = seen

    def read(self) -> cgroups.Usage:
        """The numbers after the end."""
        return self._last if self.group is None else self.group.usage()
