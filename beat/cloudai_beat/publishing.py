"""`ga_output.json`: the export of the parameters in force, and a way to change them by hand (spec section 6)."""

from __future__ import annotations

import logging
from pathlib import Path

from cloudai.parameters_file import WatchState, export, has_unseen_change, publish_if_changed
from cloudai.scheduling.errors import InvalidParameters
from cloudai.settings import Settings, state_folder
from cloudai.state.parameters import ParameterStore

logger = logging.getLogger(__name__)

#: Name of the file.
FILE = "ga_output.json"


def control_folder(settings: Settings) -> Path:
    """Where the control process of this deployment keeps its files (optimiser.state_dir)."""
    given = settings.optimiser.state_dir
    return Path(given).absolute() if given else state_folder() / "control" / settings.redis.namespace


class ParametersExport:
    """The file of one control process; keep one for as long as the process lives."""

    def __init__(self, path: Path, store: ParameterStore) -> None:
        self.path = path
        self._store = store
        self._watched = WatchState()
        self._exported: int | None = None
        self._problem = ""

    def look(self) -> int | None:
        """Publish what was changed by hand, and export what is in force if the file has another version of it.

        Returns the version that a change by hand got. A file that is refused stays as it is until it is corrected or
        removed. What goes wrong is logged once, until it is over. Raises RedisError.
        """
        try:
            version = publish_if_changed(self.path, self._store, self._watched)
            published = self._store.read()
        except InvalidParameters as error:
            self._tell(f"the parameters in force cannot be read; load good ones with `cloudai params load`: {error}")
            return None
        if published is None or self._watched.refused:
            return version
        in_force = published.parameters
        if self._exported == in_force.version and self.path.exists():
            return version
        if has_unseen_change(self.path, self._watched):
            return version
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            export(self.path, in_force)
        except OSError as error:
            self._tell(f"{self.path}: cannot be written: {error.strerror or error}. See optimiser.state_dir")
            return version
        self._exported = in_force.version
        self._problem = ""
        logger.info("parameters-exported version=%d file=%s", in_force.version, self.path)
        return version

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            logger.error("parameters-export-failed %s", problem)
            self._problem = problem
