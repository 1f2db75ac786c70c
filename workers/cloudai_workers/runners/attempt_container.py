"""The container of one attempt: one that an earlier attempt has left, or its own. Its name is the fence."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound

from cloudai.containers.errors import ImageNotFound, Refused
from cloudai_workers.pause_notes import PauseNotes
from cloudai_workers.runners.base import Job, StopHandle, job_name
from cloudai_workers.runners.cgroups import ROOT, JobGroup
from cloudai_workers.runners.engine import Engine
from cloudai_workers.runners.engine_errors import is_missing_image
from cloudai_workers.runners.image_pull import pull_image
from cloudai_workers.runners.judgement import raise_if_stopped
from cloudai_workers.runners.labels import ATTEMPT_LABEL, TASK_LABEL

#: Between two looks at a container that the engine is busy removing, seconds.
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class AttemptContainer:
    """A container that bears the name of an attempt."""

    #: The engine's id of it.
    id: str
    #: Its state as the engine told it, where it was there already; None: it was made just now.
    found: dict[str, Any] | None = None
    #: Seconds that pulling its image took.
    pull_s: float = 0.0


class _NoImageError(Exception):
    """The engine has no such image."""


def adopted(engine: Engine, job: Job, name: str, notes: PauseNotes | None) -> AttemptContainer | None:
    """The container that an earlier attempt left, under this attempt's name from now on; None: there is none."""
    if not job.adopts:
        return None
    old = job_name(job.task_id, job.adopts)
    try:
        engine.client.rename(old, name)
    except NotFound:
        return None
    except APIError as error:
        if error.status_code != 409:
            raise
    if notes is not None:
        notes.renamed(old, name)
    there = engine.inspect(name)
    return AttemptContainer(there["Id"], there["State"])


def made(engine: Engine, job: Job, control: StopHandle, name: str, config: dict[str, Any]) -> AttemptContainer:
    """A container with this configuration, its image pulled where that is needed; or the one that is there already.

    Raises:
        ContainerError: the image cannot be had, the name belongs to something else, or the job was stopped.

    """
    pull_s = _pull(engine, job, control) if job.spec.pull == "always" else 0.0
    try:
        return _create(engine, name, config, pull_s)
    except _NoImageError:
        if job.spec.pull == "never":
            raise ImageNotFound(f"{job.spec.image} is not on this node, and pull is 'never'") from None
    pull_s += _pull(engine, job, control)
    try:
        return _create(engine, name, config, pull_s)
    except _NoImageError:
        raise ImageNotFound(f"{job.spec.image} vanished after it was pulled") from None


def _pull(engine: Engine, job: Job, control: StopHandle) -> float:
    begun = time.monotonic()
    if not pull_image(engine.client, job.spec.image, control):
        raise_if_stopped(control)
    return time.monotonic() - begun


def _create(engine: Engine, name: str, config: dict[str, Any], pull_s: float) -> AttemptContainer:
    while True:
        try:
            return AttemptContainer(engine.client.create_container_from_config(config, name)["Id"], None, pull_s)
        except APIError as error:
            if is_missing_image(error):
                raise _NoImageError from error
            if error.status_code != 409:
                raise
        with contextlib.suppress(NotFound):  # it was removed in between: create again
            there = engine.inspect(name)
            wanted, has = config["Labels"], there["Config"].get("Labels") or {}
            if any(has.get(label) != value for label, value in wanted.items()):
                raise Refused(f"a container named {name} is on this node already and is not this job's")
            if there["State"]["Status"] in ("removing", "dead"):
                engine.remove(there["Id"])
                time.sleep(_LOOK_EVERY_S)  # the engine is busy removing it and tells nobody when it is done
                continue
            return AttemptContainer(there["Id"], there["State"], pull_s)


def is_there(engine: Engine, name: str) -> bool:
    """Whether the engine has a container of that name."""
    try:
        engine.inspect(name)
    except NotFound:
        return False
    return True


def first_name(engine: Engine, container: str) -> str:
    """The name that a container was made under, by which its folders are known: its label stays. NotFound."""
    labels = engine.inspect(container)["Config"].get("Labels") or {}
    if TASK_LABEL not in labels:
        return container  # it is nobody's job
    return job_name(labels[TASK_LABEL], int(labels[ATTEMPT_LABEL]))


def group_of(engine: Engine, container: str) -> JobGroup | None:
    """The control group of ours that a container was made in, by the name that it had then. NotFound."""
    parent = engine.inspect(container)["HostConfig"].get("CgroupParent") or ""
    return JobGroup(Path(parent).name) if parent.startswith(f"{ROOT}/") else None
