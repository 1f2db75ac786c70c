"""What a node tells the fleet of itself: capacity, labels, whether container jobs may come, and where its jobs live."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudai
from cloudai import names
from cloudai.scheduling.nodes import UNAVAILABLE
from cloudai.state.fleet import NodeCapacity, Registration
from cloudai_workers.adoption import Adoption
from cloudai_workers.capacity import Capacity, Telemetry, detect_capacity
from cloudai_workers.nvidia import gpu_devices
from cloudai_workers.pool import NodePool
from cloudai_workers.runner_watch import RunnerWatch
from cloudai_workers.runners.base import Runner

logger = logging.getLogger(__name__)


class Announcement:
    """Of one incarnation of a node. Made before the pool starts, complete once `prepare` has seen the worker."""

    def __init__(
        self,
        app: Any,
        name: str,
        incarnation: str,
        runner: Runner,
        adoption: Adoption,
        telemetry: Telemetry,
        *,
        pause_after_s: float,
        changed: Callable[[], None],
    ) -> None:
        """Nothing is asked of the machine yet, but for its GPUs.

        Args:
            app: the node's application.
            name: of the node.
            incarnation: under which it joins.
            runner: what runs its container jobs.
            adoption: knows the jobs that were left on this machine.
            telemetry: measures the pressure.
            pause_after_s: when a node that cannot renew its lease pauses its jobs; only shown.
            changed: called when the fleet was told something new after the registration.

        """
        self._app = app
        self._name = name
        self._incarnation = incarnation
        self._runner = runner
        self._adoption = adoption
        self._telemetry = telemetry
        self._pause_after_s = pause_after_s
        self._changed = changed
        self._settings = app.settings.node
        self._watch = RunnerWatch(
            runner,
            name,
            interval_s=self._settings.heartbeat_interval_s,
            # What was given up here while the engine was away may have come back with it.
            back=lambda: adoption.take_over(()),
            announce=self._announce,
        )
        self._devices = tuple(device.id for device in gpu_devices())
        self._capacity: Capacity | None = None
        self._pool: Any = None

    def prepare(self, worker: Any, work_dir: Path) -> None:
        """Look at the machine and the worker's pool, and say aloud what the operator must know."""
        self._pool = worker.pool
        self._watch.begin()
        declared = self._settings
        self._capacity = detect_capacity(
            work_dir,
            cpu=declared.cpu,
            memory_gib=declared.memory,
            storage_gib=declared.storage,
            gpus=None if declared.gpus is None else tuple(str(i) for i in range(declared.gpus)),
            slots=worker.concurrency,
        )
        if self._capacity.gpus and not self._devices:
            logger.warning(
                "gpus-declared node=%s count=%d: no driver answers, so they are counted but not handed to containers",
                self._name, len(self._capacity.gpus),
            )  # fmt: skip

    @property
    def capacity(self) -> Capacity:
        """What the node has, once it is prepared."""
        assert self._capacity is not None
        return self._capacity

    def start(self) -> None:
        """The node has joined: tell the fleet from now on when its runner can run no jobs, and when it can again."""
        if self.has_threads:
            self._watch.start()

    def stop(self) -> None:
        """Say nothing more."""
        self._watch.stop()

    def register(self) -> Registration:
        """Ask the fleet once to be let in. Raises RedisError."""
        limits = self._app.settings.limits
        answer: Registration = self._app.deployment.fleet.register(
            self._name,
            self._incarnation,
            NodeCapacity(
                cpu_milli=self.capacity.cpu_milli,
                memory_kib=self.capacity.memory_kib,
                gpus=len(self.capacity.gpus),
                storage_kib=self.capacity.storage_kib,
                slots=self.capacity.slots,
            ),
            labels=self.labels(),
            timeout_s=self._settings.heartbeat_timeout_s,
            lease_s=self._settings.lease_s,
            pressure=self._telemetry.sample().pressure,
            max_attempts=limits.max_attempts,
            finished_ttl_s=limits.finished_ttl_s,
            shown={
                "host": socket.gethostname(),
                "pid": str(os.getpid()),
                "version": cloudai.__version__,
                "runner": self._runner.name,
                "on_disconnect": self._settings.on_disconnect,
                "pause_after": f"{self._pause_after_s:g}",
                "pool": type(self._pool).__name__,
            },
            jobs=self._adoption.attachable() if self.can_run else (),
            home=self._home(),
            margin_s=self._settings.lease_margin_s,
        )
        return answer

    def look_at_runner(self) -> None:
        """A job could not begin, because the engine does not answer: let the fleet know before it is given back."""
        self._watch.tell()

    def labels(self) -> dict[str, str]:
        """The operator's labels, and whether container jobs may come here."""
        # A child of a prefork pool cannot look after a container, whatever the operator says.
        wanted = self._settings.labels.get(names.CONTAINERS_LABEL, "yes") if self.has_threads else "no"
        if wanted == "yes" and self._watch.problem is not None:
            wanted = UNAVAILABLE
        return {**self._settings.labels, names.CONTAINERS_LABEL: wanted}

    @property
    def can_run(self) -> bool:
        """Whether container jobs can run here now."""
        return self._watch.problem is None and self.has_threads

    @property
    def has_threads(self) -> bool:
        """Whether tasks run in threads of this process, not in processes of a pool."""
        return isinstance(self._pool, NodePool)

    def gpu_ids(self, indices: list[int]) -> tuple[str, ...]:
        """Device ids for reserved indices; none where GPUs are declared and no driver answers."""
        return tuple(self._devices[i] for i in indices if i < len(self._devices))

    def _home(self) -> str:
        """Where jobs live on; "" where none can run."""
        return self._runner.home() if self.can_run else ""

    def _announce(self) -> None:
        fleet = self._app.deployment.fleet
        fleet.announce(self._name, self._incarnation, labels=self.labels(), home=self._home())
        self._changed()
