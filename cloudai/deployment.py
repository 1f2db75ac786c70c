"""One deployment as one process sees it: settings, the state in Redis, the view of the fleet, and who decides."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import redis
from redis.exceptions import OutOfMemoryError

from cloudai.dispatcher import Dispatcher
from cloudai.errors import ClusterFull, DuplicateTask, StateUnavailable
from cloudai.fleet_view import FleetView
from cloudai.names import Keys
from cloudai.placing import Placing
from cloudai.scheduling.learning import LearningRule
from cloudai.settings import Settings
from cloudai.state.connection import connect
from cloudai.state.epochs import Epochs
from cloudai.state.events import EventStream
from cloudai.state.fleet import Fleet
from cloudai.state.full_memory import ANY_COMMAND
from cloudai.state.ledger import Ledger
from cloudai.state.link import link_of
from cloudai.state.parameters import ParameterStore
from cloudai.state.scripts import Scripts
from cloudai.state.submissions import Placement, Submission
from cloudai.state.sweep import Sweep
from cloudai.state.tau import TauTable

#: What a full Redis means to who submits.
MEMORY_FULL = (
    "Redis has reached its maxmemory and takes no new tasks; running ones end as usual. Submit again when some have "
    "ended, or give Redis more memory"
)

#: How long a submission waits for the disk under durability = "strict", milliseconds.
WAITAOF_TIMEOUT_MS = 5000

#: Deployments of this process by key: kombu makes transports from a URL and options, and finds its deployment here.
_known: weakref.WeakValueDictionary[str, Deployment] = weakref.WeakValueDictionary()


class Deployment:
    """Everything that is needed to submit to one deployment, or to look at it. Connects when first used."""

    def __init__(self, settings: Settings, sentinel_options: Mapping[str, Any] | None = None) -> None:
        self.settings = settings
        #: For the connections to Sentinels, as kombu's `sentinel_kwargs`.
        self._sentinel_options = sentinel_options
        self.keys = Keys(settings.redis.namespace)
        self.scripts = Scripts(settings.limits.events_maxlen)
        self.key = f"{settings.redis.namespace}:{id(self):x}"
        #: True in a node: what its tasks publish (links, chords, retries) goes on with work that was accepted, and is
        #: taken also when the server's memory is full; limits.max_in_flight bounds it.
        self.continues = False
        _known[self.key] = self

    @cached_property
    def client(self) -> redis.Redis:
        """A client of the state's Redis; safe to use from threads and after a fork."""
        server = self.settings.redis
        return connect(server.url, server.sentinel_master, self._sentinel_options)

    @cached_property
    def ledger(self) -> Ledger:
        """The tasks."""
        limits = self.settings.limits
        return Ledger(
            self.client,
            self.keys,
            self.scripts,
            max_live=limits.max_in_flight,
            finished_ttl_s=limits.finished_ttl_s,
            decision_ttl_s=self.settings.scheduling.decision_ttl_s,
            rule=self.learning_rule,
            max_families=self.settings.learning.max_families,
        )

    @cached_property
    def learning_rule(self) -> LearningRule:
        """How completions move tau, as configured."""
        learning = self.settings.learning
        return LearningRule(
            rate=learning.rate,
            rate_by_type=learning.rate_by_type,
            adaptive=learning.adaptive,
            outlier_sigma=learning.outlier_sigma,
            outlier_after=learning.outlier_after,
            follow_after=learning.follow_after,
        )

    @cached_property
    def fleet(self) -> Fleet:
        """The nodes."""
        return Fleet(self.client, self.keys, self.scripts)

    @cached_property
    def tau(self) -> TauTable:
        """The learned runtimes."""
        return TauTable(self.client, self.keys, self.scripts)

    @cached_property
    def parameters(self) -> ParameterStore:
        """The parameters in force."""
        return ParameterStore(self.client, self.keys, self.scripts)

    @cached_property
    def events(self) -> EventStream:
        """What the recorder reads."""
        return EventStream(self.client, self.keys, self.scripts)

    @cached_property
    def epochs(self) -> Epochs:
        """The optimiser's epochs."""
        return Epochs(self.client, self.keys, self.scripts)

    @cached_property
    def sweep(self) -> Sweep:
        """What only time brings about."""
        node = self.settings.node
        return Sweep(
            self.client,
            self.keys,
            self.scripts,
            heartbeat_timeout_s=node.heartbeat_timeout_s,
            lease_margin_s=node.lease_margin_s,
            max_attempts=self.settings.limits.max_attempts,
            finished_ttl_s=self.settings.limits.finished_ttl_s,
        )

    @cached_property
    def view(self) -> FleetView:
        """What this process knows of the fleet."""
        return FleetView(
            self.fleet,
            params_reload_interval_s=self.settings.scheduling.params_reload_interval_s,
            family_after=self.settings.learning.family_after,
            max_families=self.settings.learning.max_families,
        )

    @cached_property
    def placing(self) -> Placing:
        """Who decides where tasks go."""
        return Placing(self.view, self.ledger, self.settings)

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """Who places waiting tasks."""
        return Dispatcher(
            self.placing,
            self.view,
            self.ledger,
            starvation_after_s=self.settings.scheduling.starvation_after_s,
        )

    def submit(
        self, submission: Submission, candidates: Sequence[tuple[str, str]], client: redis.Redis | None = None
    ) -> Placement:
        """Put a submission into the ledger and learn from the answer.

        ClusterFull and DuplicateTask: nothing was written.
        """
        view = self.view
        try:
            placement = self.ledger.place(submission, candidates, view.version, client)
        except OutOfMemoryError as error:
            if not self.continues:
                raise ClusterFull(MEMORY_FULL) from error
            placement = self.ledger.place(submission, candidates, view.version, client, although_full=True)
        with view.lock:
            view.saw_time(placement.now)
            view.apply(placement.changes)
        if placement.status == "full":
            raise ClusterFull(
                f"{self.settings.limits.max_in_flight} tasks are unfinished (limits.max_in_flight): "
                "submit again when some have ended"
            )
        if placement.status == "busy":
            raise DuplicateTask(
                f"task {submission.task_id}: a task with this id is unfinished already; leave task_id out, or wait"
            )
        if self.settings.redis.durability == "strict":
            self.confirm(submission.task_id)
        # It waits although something seemed to fit: the view was behind, or others of its shape are first in line.
        if placement.status == "waiting" and candidates:
            self.dispatcher.follow_submission()
        return placement

    def confirm(self, task_id: str) -> None:
        """Wait until what was written so far is on the server's disk (redis.durability = "strict").

        StateUnavailable when that takes too long: the task is accepted, but a crash of Redis might lose it.
        """
        link = link_of(self.client)
        # WAITAOF waits for the writes of its own connection; this one comes after all that was written before.
        try:
            link.call("HINCRBY", self.keys.counters, "strict_waits", 1)
        except OutOfMemoryError:
            link.call("EVAL", ANY_COMMAND, 0, "HINCRBY", self.keys.counters, "strict_waits", 1)
        on_disk, _ = link.call("WAITAOF", 1, 0, WAITAOF_TIMEOUT_MS)
        if not on_disk:
            raise StateUnavailable(
                f"task {task_id} is accepted, but Redis did not write it to disk within "
                f"{WAITAOF_TIMEOUT_MS / 1000:g} s: look at its disk; do not submit the task again, it will run"
            )


def deployment_of(key: str | None) -> Deployment | None:
    """The deployment that a transport was made for; None for a connection of another application."""
    return None if key is None else _known.get(key)
