"""The folders on a node that hold what a container job is given and what it leaves.

<work_dir>/artefacts/<namespace>/<node>/<job name>/in-0     what came from its first input
                                                  /out-0    what it leaves at its first output
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from cloudai.containers.arguments import Volume
from cloudai.containers.errors import InputsNotFetched, OutputsNotKept, Refused
from cloudai.containers.result import ContainerResult
from cloudai_workers.runners.base import Job
from cloudai_workers.runners.policy import Admitted
from cloudai_workers.stores import StoreError, store_of

log = logging.getLogger(__name__)


class Artefacts:
    """All such folders of one node."""

    def __init__(self, work_dir: Path | None, namespace: str, node: str) -> None:
        """Nothing is made yet; without a `work_dir` jobs with inputs or outputs are refused."""
        self._root = None if work_dir is None else work_dir.resolve() / "artefacts" / namespace / node

    def of(self, name: str, admitted: Admitted) -> JobArtefacts | None:
        """The folders of the job with this name; None: it asks for none. Raises Refused."""
        if not admitted.inputs and not admitted.outputs:
            return None
        if self._root is None:
            raise Refused("inputs, outputs: this node has no folder for them (node.work_dir)")
        return JobArtefacts(self._root / name, admitted)

    def remove(self, name: str) -> None:
        """Remove what a job had, if anything."""
        if self._root is not None:
            _remove(self._root / name)

    def remove_others(self, names: Collection[str]) -> None:
        """Remove what jobs had that are not there any more."""
        if self._root is not None and self._root.is_dir():
            for folder in self._root.iterdir():
                if folder.name not in names:
                    _remove(folder)


class JobArtefacts:
    """The folders of one job."""

    def __init__(self, folder: Path, admitted: Admitted) -> None:
        self.folder = folder
        self._inputs = [(folder / f"in-{i}", path, url) for i, (path, url) in enumerate(admitted.inputs)]
        self._outputs = [(folder / f"out-{i}", path, url) for i, (path, url) in enumerate(admitted.outputs)]

    def mounts(self) -> tuple[Volume, ...]:
        """What the container sees: inputs for reading only, outputs for writing."""
        return tuple(
            Volume(str(folder), path, mode)
            for folders, mode in ((self._inputs, "ro"), (self._outputs, "rw"))
            for folder, path, _ in folders
        )

    def prepare(self, job: Job, check: Callable[[], None]) -> None:
        """Fetch the inputs, and make room for the outputs, from nothing.

        Raises:
            InputsNotFetched: and whatever `check` raises, which is called while bytes move.

        """
        where = str(self.folder)
        try:
            _remove(self.folder)
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            # The folder shuts out the machine's other users: those inside let every user of the container in.
            self.folder.mkdir(mode=0o700)
            for folder, path, url in self._inputs:
                where = f"{path} from {url}"
                folder.mkdir()
                store_of(url).fetch(url, folder, check)
            for folder, path, _ in self._outputs:
                where = path
                folder.mkdir()
                _give_to(job.spec.user, folder)
        except (StoreError, OSError) as error:
            raise InputsNotFetched(f"{where}: {error}") from error

    def keep(self, job: Job, name: str, result: ContainerResult, check: Callable[[], None]) -> ContainerResult:
        """Keep the outputs; the record says where they are.

        Raises:
            OutputsNotKept: with the record; and whatever `check` raises, which is called while bytes move.

        """
        for folder, path, url in self._outputs:
            try:
                store_of(url).keep(folder, url, name, check)
            except (StoreError, OSError) as error:
                raise OutputsNotKept(f"{path} to {url}: {error}", result) from error
        return replace(result, outputs=dict(job.spec.outputs))

    def remove(self) -> None:
        """Remove all of it."""
        _remove(self.folder)


def _give_to(user: str | None, folder: Path) -> None:
    """Let the container's user write there: known by number only, for a name is the image's."""
    folder.chmod(0o777)
    number, _, group = (user or "").partition(":")
    if number.isdecimal() and os.geteuid() == 0:
        os.chown(folder, int(number), int(group) if group.isdecimal() else -1)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except (OSError, RecursionError) as error:
        # A node that is not root cannot remove what another user has made in a folder of its own.
        log.warning("artefacts-not-removed folder=%s reason=%s", folder, error)
