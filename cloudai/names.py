"""Every name that CloudAI writes outside its own process: Redis keys, queues, headers, event kinds.

One place, so that a name is never spelled twice. All keys of a deployment share one hash tag, because every
state change is one Lua script over several of them.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Virtual queue whose `put` places a task (transport.py); nobody consumes it.
PLACE_QUEUE = "cloudai.place"

#: Message header that carries the request; see router.py.
HEADER = "cloudai"

#: Celery name of the task that runs a container.
CONTAINER_TASK = "cloudai.run_container"

#: Label that every node announces: "yes" where it runs container jobs, "no" where it cannot (a prefork pool) or its
#: operator does not want them, scheduling.nodes.UNAVAILABLE while its engine does not answer. Container jobs ask for
#: it.
CONTAINERS_LABEL = "containers"

#: Version of the state's layout, in Redis and in the header. A reader accepts its own and the one before.
SCHEMA_VERSION = 1

#: Task states of the ledger (design: life of a task).
WAITING = "waiting"
PLACED = "placed"
RUNNING = "running"
SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"
TIMED_OUT = "timed_out"
EXPIRED = "expired"
LOST = "lost"
FINAL_STATES = frozenset({SUCCEEDED, FAILED, CANCELLED, TIMED_OUT, EXPIRED, LOST})

#: Celery task that runs an epoch of the optimiser, in the control process.
EPOCH_TASK = "cloudai.epoch"

#: Suffix of Celery's own per-worker queue (`worker_direct`), the node's list of doorbells.
_DIRECT_SUFFIX = ".dq2"


def node_queue(node: str) -> str:
    """The Celery queue of one node, as `celery.utils.nodenames.worker_direct` names it."""
    return node + _DIRECT_SUFFIX


def control_queue(namespace: str) -> str:
    """The Celery queue that a deployment's control process consumes."""
    return f"{namespace}.control"


def queue_node(queue: str) -> str:
    """The node that a queue of `node_queue` belongs to."""
    return queue.removesuffix(_DIRECT_SUFFIX)


@dataclass(frozen=True, slots=True)
class Keys:
    """The Redis keys of one deployment. Lua builds the same names from `prefix` (lua/prelude.lua)."""

    #: Name of the deployment; two deployments may share one Redis.
    namespace: str = "cloudai"

    @property
    def prefix(self) -> str:
        """What every key begins with, hash tag included."""
        return "{" + self.namespace + "}:"

    def task(self, task_id: str) -> str:
        """Hash: the ledger entry (fields: state/ledger.py). Expires some time after the task ended."""
        return f"{self.prefix}task:{task_id}"

    def message(self, task_id: str) -> str:
        """String: the Celery message, kept until the task ends."""
        return f"{self.prefix}message:{task_id}"

    def next(self, task_id: str) -> str:
        """Hash: what a retry or a replacement published while the attempt was still running."""
        return f"{self.prefix}next:{task_id}"

    def decision(self, task_id: str) -> str:
        """String: the decision record, with a TTL."""
        return f"{self.prefix}decision:{task_id}"

    def node(self, name: str) -> str:
        """Hash: capacity, what is free, telemetry, incarnation (fields: state/fleet.py)."""
        return f"{self.prefix}node:{name}"

    def node_tasks(self, name: str) -> str:
        """Set: ids of the tasks that the ledger holds on the node."""
        return f"{self.prefix}node:{name}:tasks"

    def shape(self, shape: str) -> str:
        """Sorted set: waiting tasks of one shape of request, by deadline."""
        return f"{self.prefix}waiting:shape:{shape}"

    @property
    def fleet(self) -> str:
        """Sorted set: node names by the fleet version of their last change."""
        return f"{self.prefix}fleet"

    @property
    def waiting(self) -> str:
        """Sorted set: tasks that wait for capacity, by deadline."""
        return f"{self.prefix}waiting"

    @property
    def delayed(self) -> str:
        """Sorted set: tasks that wait for their ETA, by the ETA."""
        return f"{self.prefix}delayed"

    @property
    def unsettled(self) -> str:
        """Sorted set: tasks that ended without a worker and whose result is not stored yet."""
        return f"{self.prefix}unsettled"

    def settling(self, task_id: str) -> str:
        """String with a short TTL: a process stores the result of a task that ended without a worker."""
        return f"{self.prefix}settling:{task_id}"

    def output(self, listener: str) -> str:
        """Channel, no key: the output of a job, from its node to one who asked; `*` for all of them."""
        return f"{self.prefix}output:{listener}"

    @property
    def live(self) -> str:
        """String: how many accepted tasks have not ended."""
        return f"{self.prefix}live"

    @property
    def counters(self) -> str:
        """Hash: totals since the deployment began, by name."""
        return f"{self.prefix}counters"

    @property
    def node_counters(self) -> str:
        """Hash: totals of each node that is known, as `counter:node`; "" for what no node had."""
        return f"{self.prefix}counters:nodes"

    @property
    def tau(self) -> str:
        """Hash: task type -> its learned runtime (as in state/tau.py)."""
        return f"{self.prefix}tau"

    @property
    def tau_families(self) -> str:
        """Hash: `type:family` -> its learned runtime."""
        return f"{self.prefix}tau:families"

    @property
    def tau_changed(self) -> str:
        """Sorted set: `type:family` by the version of its last change."""
        return f"{self.prefix}tau:changed"

    @property
    def speed(self) -> str:
        """Hash: `type:node` -> speed factor of the parameters in force."""
        return f"{self.prefix}speed"

    @property
    def parameters(self) -> str:
        """Hash: `json`, `version`, `source`, `published` of the parameters in force, and who has `pinned` them."""
        return f"{self.prefix}parameters"

    @property
    def parameters_past(self) -> str:
        """List: the versions that were in force before, newest first."""
        return f"{self.prefix}parameters:past"

    @property
    def parameters_watch(self) -> str:
        """String: what the optimiser keeps of the evolved genes that it published last."""
        return f"{self.prefix}parameters:watch"

    @property
    def events(self) -> str:
        """Stream: one entry for each state change."""
        return f"{self.prefix}events"

    @property
    def recorder(self) -> str:
        """Hash: how far the history has read the stream (fields: state/events.py)."""
        return f"{self.prefix}recorder"

    @property
    def epoch(self) -> str:
        """Hash: who runs an epoch of the optimiser (fields: state/epochs.py)."""
        return f"{self.prefix}epoch"

    @property
    def epochs(self) -> str:
        """List: reports of the latest epochs as JSON, newest first."""
        return f"{self.prefix}epochs"

    @property
    def dead_letters(self) -> str:
        """List: frames that no node could read."""
        return f"{self.prefix}dead-letters"


#: Keys (after the prefix, `*` allowed) that have no TTL, each with the rule that bounds it.
PERMANENT_KEYS: dict[str, str] = {
    "task:*": "unfinished tasks only; finish sets a TTL; bounded by limits.max_in_flight",
    "message:*": "unfinished or unsettled tasks only",
    "next:*": "a running task's retry; promoted or deleted when the attempt ends",
    "node:*": "one entry a node; the sweep forgets nodes that are gone",
    "fleet": "one member a node",
    "fleet:version": "a counter",
    "heartbeats": "one member a node",
    "gone": "one member a node that has left or is lost, until it is forgotten",
    "live": "a counter",
    "waiting": "unfinished tasks",
    "waiting:parked": "a counter",
    "waiting:shapes": "shapes of waiting tasks",
    "waiting:shape:*": "unfinished tasks of one shape",
    "waiting:request:*": "one a waiting shape; deleted with its last task",
    "delayed": "unfinished tasks",
    "expiring": "unfinished tasks with an expiry",
    "unsettled": "ended tasks whose result is about to be stored",
    "counters": "a fixed set of names",
    "counters:nodes": "some fields a node, forgotten with it",
    "tau": "one field a task type",
    "tau:families": "one field a family, to learning.max_families",
    "tau:changed": "one member a family",
    "tau:version": "a counter",
    "speed": "one field a pair of type and node in the parameters in force",
    "parameters": "one value",
    "parameters:past": "trimmed to a fixed length",
    "parameters:watch": "one value",
    "schema": "one value",
    "sweep": "one value",
    "events": "trimmed behind the recorder, and to limits.events_maxlen",
    "recorder": "one value",
    "epoch": "one value",
    "epochs": "trimmed to a fixed length",
    "dead-letters": "trimmed to a fixed length",
}
