"""The fleet in Redis: who is there, what each node can hold, what is free, and what its telemetry says.

Fields of a node (hash `node:<name>`): incarnation, state (up, draining, stale, lost, down), heartbeat and registered
(epoch seconds of the server), timeout and lease (seconds), held_for, drain (1: it shall drain, also when it was
silent), labels (JSON), announced (the incarnation, and when it said its capacities and labels), home (where its jobs
live on), pressure, usage (JSON), the capacities (`*_capacity`) and what is free: cpu (1/1000 core), memory and storage
(KiB), slots, gpu (free share of each device in thousandths, comma separated), and what is shown of it (pool, runner,
version, host).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from cloudai.names import Keys
from cloudai.scheduling.learning import Learned
from cloudai.scheduling.nodes import NodeState
from cloudai.state.scripts import Scripts
from cloudai.state.tau import read_learned, read_shares, read_types

#: Node states.
UP = "up"
DRAINING = "draining"
STALE = "stale"
NODE_LOST = "lost"
DOWN = "down"
NODE_STATES = (UP, DRAINING, STALE, NODE_LOST, DOWN)
#: States of a node that is in service no more.
GONE_STATES = frozenset({NODE_LOST, DOWN})


#: Why a registration is refused for longer: the node's jobs may still run on another machine.
ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """What a node announces when it registers."""

    #: 1/1000 core.
    cpu_milli: int
    memory_kib: int
    #: GPU devices.
    gpus: int
    storage_kib: int
    #: Tasks at once: the size of its pool.
    slots: int


@dataclass(frozen=True, slots=True)
class Registration:
    """Answer to a node that wants to join."""

    accepted: bool
    #: Incarnation that holds the name, where it was refused.
    holder: str
    #: Seconds since that one's last heartbeat.
    holder_silent_s: float
    #: Tasks of the last incarnation that are placed on this one again.
    adopted: tuple[str, ...]
    #: Those of them that attach to a job which was found.
    adopting: tuple[str, ...] = ()
    #: ELSEWHERE, or "".
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Beat:
    """Answer to a heartbeat."""

    #: ok | returned (it was judged silent: check what is still ours) | superseded | unknown | down
    status: str
    #: Server time, epoch seconds.
    now: float
    #: Tasks that wait for capacity.
    waiting: int
    #: The node's state as others see it.
    state: str


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a scheduling process must know, read in one step."""

    now: float
    #: Version of the fleet; below the caller's own, Redis has lost its data.
    version: int
    changes: str
    #: What is known of the runtime of each task type that has learned.
    types: dict[str, Learned]
    #: Of runtime over the time from arrival to deadline, by task type.
    shares: dict[str, Learned]
    #: Families whose runtime has changed: version of the change, `type:family`, what is known; oldest change first.
    families: list[tuple[int, str, Learned]]
    parameters_version: int
    #: JSON of the parameters, "" when the caller has them already or did not ask.
    parameters: str


@dataclass(frozen=True, slots=True)
class Heard:
    """The last heartbeat of a node."""

    name: str
    incarnation: str
    #: Epoch seconds of the server.
    registered: float
    heartbeat: float
    #: Its telemetry; `overload_s` and `overload_excess_s` are clocks that run while it lives, seconds.
    usage: Mapping[str, float]


class Fleet:
    """Typed access to the scripts of the fleet."""

    def __init__(self, client: Redis, keys: Keys, scripts: Scripts) -> None:
        self.client = client
        self.keys = keys
        self._scripts = scripts

    def register(
        self,
        name: str,
        incarnation: str,
        capacity: NodeCapacity,
        *,
        labels: Mapping[str, str],
        timeout_s: float,
        lease_s: float,
        pressure: float,
        max_attempts: int,
        finished_ttl_s: int,
        shown: Mapping[str, str],
        jobs: Collection[tuple[str, int]] = (),
        home: str = "",
        margin_s: float = 0.0,
    ) -> Registration:
        """Join the fleet as a new incarnation. Refused while another live incarnation holds the name.

        Live: a heartbeat within the timeout that it registered with. What the last incarnation held is placed here
        again,
        with the next attempt, where it still fits, running tasks first; else it waits. A running task whose retry was
        published waits with that; one that was cancelled, or was lost `max_attempts` times, ends unsettled.

        `jobs` are task ids and attempts of the jobs found on the node's machine (`home`): a running task among them is
        placed here with the next attempt, which attaches to its job, so nothing counts as lost. While the last
        incarnation's lease and margin last, another machine is refused what that one ran (reason ELSEWHERE).
        """
        args: list[str | int | float] = [
            name, incarnation, capacity.cpu_milli, capacity.memory_kib, capacity.gpus, capacity.storage_kib,
            capacity.slots, _labels_text(labels), timeout_s, lease_s, pressure, max_attempts,
            finished_ttl_s, json.dumps([list(job) for job in jobs]), home, margin_s,
        ]  # fmt: skip
        for pair in shown.items():
            args += pair
        reply = self._scripts.register.run(self.client, self.keys.prefix, *args)
        if reply[0] == b"refused":
            reason = reply[3].decode() if len(reply) > 3 else ""
            return Registration(False, reply[1].decode(), float(reply[2]), (), reason=reason)
        adopted, adopting = (tuple(task_id.decode() for task_id in ids) for ids in (reply[1], reply[3]))
        return Registration(True, incarnation, 0.0, adopted, adopting)

    def heartbeat(
        self, name: str, incarnation: str, *, pressure: float, usage: Mapping[str, float], publish_after_s: float
    ) -> Beat:
        """Tell that the node lives, with its telemetry. `publish_after_s`: repeat an unchanged row after so long."""
        reply = self._scripts.heartbeat.run(
            self.client, self.keys.prefix, name, incarnation, pressure, json.dumps(usage), publish_after_s
        )
        state = reply[3].decode() if len(reply) > 3 else ""
        return Beat(reply[0].decode(), float(reply[1]), int(reply[2]), state)

    def announce(self, name: str, incarnation: str, *, labels: Mapping[str, str], home: str) -> str:
        """Change the labels of a node that runs, and where its jobs live; returns its state, `unknown` or `superseded`.

        What was placed on it for a label that it has no longer, and was not claimed, waits again.
        """
        reply: bytes = self._scripts.announce.run(
            self.client, self.keys.prefix, name, incarnation, _labels_text(labels), home
        )
        return reply.decode()

    def drain(self, name: str) -> str:
        """Let the node finish what runs and take nothing new; returns its state, or `unknown`.

        What was placed on it and not claimed waits again. The wish holds until undrain or the next registration,
        through
        a silence too.
        """
        return self._set_state(name, DRAINING, "")

    def undrain(self, name: str) -> str:
        """Take a draining node back into service; returns its state, or `unknown`."""
        return self._set_state(name, UP, "")

    def sign_off(self, name: str, incarnation: str) -> str:
        """The node leaves in good order; what was placed on it and not claimed waits again.

        Returns `down`, `unknown`, or `superseded` when another incarnation has the name. What still counts as running
        there is freed by the sweep when the lease has run out.
        """
        return self._set_state(name, DOWN, incarnation)

    def _set_state(self, name: str, state: str, incarnation: str) -> str:
        reply: bytes = self._scripts.set_node_state.run(self.client, self.keys.prefix, name, state, incarnation)
        return reply.decode()

    def ring(self, name: str, after_s: float) -> list[str]:
        """Ring again for tasks placed on the node more than `after_s` ago whose doorbell is gone; returns their ids."""
        return [i.decode() for i in self._scripts.ring.run(self.client, self.keys.prefix, name, after_s)]

    def audit(self, name: str) -> str:
        """Recompute what is reserved on a node from the tasks that the ledger holds there (invariant 1).

        Returns "", or what was wrong: then it is put right, and counted as `reservation_leaks`.
        """
        found: bytes = self._scripts.audit.run(self.client, self.keys.prefix, name)
        return found.decode()

    def refresh(
        self, since: int, rows: int, parameters_version: int | None, families_since: int = 0
    ) -> Refresh:
        """The fleet's changes since a version, tau, and the parameters when they differ from the version given: one
        round trip. None does not ask for parameters. Of the families, those that have changed since `families_since`.
        """
        now, changes, tau, version, text, fleet_version, families = self._scripts.refresh.run(
            self.client, self.keys.prefix, since, rows, "" if parameters_version is None else parameters_version,
            families_since,
        )  # fmt: skip
        return Refresh(
            now=float(now),
            version=int(fleet_version),
            changes=changes.decode(),
            types=read_types(tau),
            shares=read_shares(tau),
            families=[_read_family(row.decode()) for row in families],
            parameters_version=int(version),
            parameters=text.decode(),
        )

    def names(self) -> list[str]:
        """Names of all nodes that are known, gone ones included."""
        found: Any = self.client.zrange(self.keys.fleet, 0, -1)
        return sorted(name.decode() for name in found)

    def entry(self, name: str) -> dict[str, str]:
        """All fields of a node; empty when it is unknown."""
        found: Any = self.client.hgetall(self.keys.node(name))
        return {k.decode(): v.decode() for k, v in found.items()}

    def heard(self) -> list[Heard]:
        """What each known node has told last, gone ones included."""
        names = self.names()
        with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(self.keys.node(name), "incarnation", "registered", "heartbeat", "usage")
            found = pipe.execute()
        return [
            Heard(name, row[0].decode(), float(row[1]), float(row[2]), json.loads(row[3] or b"{}"))
            for name, row in zip(names, found, strict=True)
            if None not in row[:3]
        ]

    def fixed(self, names: Iterable[str]) -> dict[str, FixedFields]:
        """What a node's row does not repeat, for nodes that a snapshot does not know yet."""
        wanted = list(names)
        with self.client.pipeline(transaction=False) as pipe:
            for name in wanted:
                pipe.hmget(self.keys.node(name), *_FIXED)
            found = pipe.execute()
        return {
            name: FixedFields(
                announced=(row[7] or row[0]).decode(),
                cpu_milli=int(row[1]),
                memory_kib=int(row[2]),
                gpus=int(row[3]),
                storage_kib=int(row[4]),
                slots=int(row[5]),
                labels=json.loads(row[6]),
            )
            for name, row in zip(wanted, found, strict=True)
            if row[0] is not None
        }


def _read_family(row: str) -> tuple[int, str, Learned]:
    version, *known, name = row.split(" ", 6)
    return int(version), name, read_learned(" ".join(known))


_FIXED = (
    "incarnation",
    "cpu_capacity",
    "memory_capacity",
    "gpu_capacity",
    "storage_capacity",
    "slots_capacity",
    "labels",
    "announced",
)


def _labels_text(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), sort_keys=True)


@dataclass(frozen=True, slots=True)
class FixedFields:
    """A node's capacity and labels: they hold until it announces others."""

    #: Names the announcement, as the node's rows do: the incarnation, and when it said this.
    announced: str
    cpu_milli: int
    memory_kib: int
    gpus: int
    storage_kib: int
    slots: int
    labels: dict[str, str]


def read_changes(changes: str) -> list[list[str]]:
    """The changed rows of the fleet in what a script returned, oldest change first: name, version, then ROW."""
    return [line.split("\t") for line in changes.split("\n")] if changes else []


def read_row(row: Sequence[str], fixed: FixedFields) -> NodeState:
    """One changed row of the fleet as the value that scheduling works on."""
    name, version, _, state, heartbeat, held_for, cpu, memory, storage, slots, gpu, pressure = row
    return NodeState(
        name=name,
        labels=fixed.labels,
        cpu_capacity=fixed.cpu_milli,
        memory_capacity=fixed.memory_kib,
        gpu_capacity=fixed.gpus,
        storage_capacity=fixed.storage_kib,
        slots_capacity=fixed.slots,
        cpu_available=int(cpu),
        memory_available=int(memory),
        storage_available=int(storage),
        slots_available=int(slots),
        gpu_free=tuple(map(int, gpu.split(","))) if gpu else (),
        pressure=float(pressure),
        heartbeat=float(heartbeat),
        accepting=state == UP,
        gone=state in GONE_STATES,
        held_for=held_for,
        version=int(version),
    )
