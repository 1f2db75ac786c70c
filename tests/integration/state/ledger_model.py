"""The ledger in plain Python: what every script must bring about, for the state machine to compare with.

Times are a clock of the model's own, in seconds; its steps are far larger than what a test takes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cloudai.scheduling.learning import Learned, LearningRule, learn

#: Seconds. No sum of the steps 1 and 500 comes near a sum of these.
TIMEOUT_S, LEASE_S, MARGIN_S = 1200.0, 3100.0, 130.0
MAX_ATTEMPTS = 2
FINAL = frozenset({"succeeded", "failed", "cancelled", "timed_out", "expired", "lost"})


@dataclass(frozen=True)
class Need:
    """What a task asks for: 1/1000 core, KiB, 1/1000 GPU device, KiB."""

    cpu: int
    memory: int
    gpu: int = 0
    storage: int = 0

    @property
    def shape(self) -> str:
        return f"{self.cpu}/{self.memory}/{self.gpu}/{self.storage}"


@dataclass
class Message:
    """One publication of a task."""

    nonce: str
    need: Need
    #: When it may start and until when, by the model's clock; None: at once, for ever.
    eta: float | None
    expires: float | None


@dataclass
class Task:
    """One id."""

    message: Message
    #: waiting, delayed, placed, running or a final state
    state: str = "submitted"
    node: str = ""
    attempt: int = 0
    devices: tuple[int, ...] = ()
    losses: int = 0
    revoked: bool = False
    next: Message | None = None
    settled: bool = True

    @property
    def need(self) -> Need:
        return self.message.need


@dataclass
class Node:
    """One node and its latest incarnation; capacity in the units of Need."""

    cpu: int
    memory: int
    gpus: int
    storage: int
    slots: int
    incarnation: int = 1
    #: up, draining, stale, lost or down
    state: str = "up"
    drain: bool = False
    heard: float = 0.0
    held_for: str = ""
    #: The sweep still looks after it.
    watched: bool = True


@dataclass
class Model:
    """All of it. Methods are named after the scripts; each notes the events that it expects."""

    tasks: dict[str, Task] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    clock: float = 0.0
    swept: float = float("-inf")
    judge_after: float = 0.0
    tau: Learned = field(default_factory=lambda: Learned(5.0))
    events: Counter[str] = field(default_factory=Counter)

    # --- looking

    def on(self, name: str) -> list[Task]:
        return [t for t in self.tasks.values() if t.node == name and t.state in ("placed", "running")]

    def in_state(self, *states: str) -> set[str]:
        return {task_id for task_id, task in self.tasks.items() if task.state in states}

    def live(self) -> int:
        return len(self.in_state("waiting", "delayed", "placed", "running"))

    def expiring(self) -> set[str]:
        return {i for i in self.in_state("waiting", "delayed", "placed") if self.tasks[i].message.expires is not None}

    def gpu_free(self, name: str) -> list[int]:
        shares = [1000] * self.nodes[name].gpus
        for task in self.on(name):
            for device in task.devices:
                shares[device] -= min(task.need.gpu, 1000)
        return shares

    def free(self, name: str) -> tuple[int, int, int, int]:
        """cpu, memory, storage, slots"""
        node, held = self.nodes[name], self.on(name)
        return (
            node.cpu - sum(t.need.cpu for t in held),
            node.memory - sum(t.need.memory for t in held),
            node.storage - sum(t.need.storage for t in held),
            node.slots - len(held),
        )

    def silent(self, name: str) -> bool:
        return self.clock - self.nodes[name].heard > TIMEOUT_S

    def fits(self, task_id: str, name: str) -> tuple[int, ...] | None:
        """The GPU devices that the task would get, or None."""
        need, node = self.tasks[task_id].need, self.nodes.get(name)
        if node is None or node.state != "up" or self.silent(name) or node.held_for not in ("", task_id):
            return None
        cpu, memory, storage, slots = self.free(name)
        if need.cpu > cpu or need.memory > memory or need.storage > storage or slots < 1:
            return None
        shares = self.gpu_free(name)
        if need.gpu == 0:
            return ()
        if need.gpu >= 1000:
            whole = [device for device, share in enumerate(shares) if share == 1000]
            count = need.gpu // 1000
            return tuple(whole[:count]) if len(whole) >= count else None
        room = [(share, device) for device, share in enumerate(shares) if share >= need.gpu]
        return (min(room)[1],) if room else None

    # --- moves

    def park(self, task_id: str) -> None:
        task = self.tasks[task_id]
        task.node, task.devices = "", ()
        eta = task.message.eta
        task.state = "delayed" if eta is not None and eta > self.clock else "waiting"
        # An ETA counts once: a task that is given back later does not wait for it again.
        task.message.eta = eta if task.state == "delayed" else None
        self.events["waiting"] += 1

    def try_place(self, task_id: str, names: list[str]) -> str:
        task = self.tasks[task_id]
        for name in names:
            devices = self.fits(task_id, name)
            if devices is not None:
                self.drop_hold(task_id)
                task.state, task.node, task.devices, task.attempt = "placed", name, devices, task.attempt + 1
                self.events["placed"] += 1
                return name
        return ""

    def drop_hold(self, task_id: str) -> None:
        for node in self.nodes.values():
            if node.held_for == task_id:
                node.held_for = ""

    def close(self, task_id: str, state: str, *, settled: bool) -> None:
        task = self.tasks[task_id]
        self.drop_hold(task_id)
        task.state, task.settled, task.next = state, settled, None

    def end_without_worker(self, task_id: str, state: str) -> None:
        self.close(task_id, state, settled=False)
        self.events["finished"] += 1

    def promote(self, task_id: str) -> bool:
        task = self.tasks[task_id]
        if task.next is None:
            return False
        task.message, task.next = task.next, None
        self.park(task_id)
        return True

    def lose(self, task_id: str) -> bool:
        task = self.tasks[task_id]
        task.losses += 1
        if task.revoked:
            self.end_without_worker(task_id, "cancelled")
            return False
        if self.promote(task_id):
            return False
        if task.losses >= MAX_ATTEMPTS:
            self.end_without_worker(task_id, "lost")
            return False
        return True

    # --- scripts

    def place(self, task_id: str, message: Message, names: list[str], from_attempt: int) -> tuple[str, str]:
        task = self.tasks.get(task_id)
        if task is not None and task.message.nonce == message.nonce:
            return "duplicate", ""
        if from_attempt and (task is None or task.state != "running" or task.attempt != from_attempt):
            return "stale", ""
        if task is not None:
            if task.revoked:
                return "revoked", ""
            if task.state == "running":
                if task.next is not None and task.next.nonce == message.nonce:
                    return "duplicate", ""
                task.next = message
                return "next", ""
            if task.state not in FINAL or not task.settled:
                return "busy", ""
        first_of_shape = not any(
            t.state == "waiting" and t.need.shape == message.need.shape for t in self.tasks.values()
        )
        self.tasks[task_id] = Task(message, attempt=0 if task is None else task.attempt)
        self.events["submitted"] += 1
        delayed = message.eta is not None and message.eta > self.clock
        if not delayed and first_of_shape:
            node = self.try_place(task_id, names)
            if node:
                return "placed", node
        self.park(task_id)
        return ("delayed" if delayed else "waiting"), ""

    def place_waiting(self, task_id: str, names: list[str]) -> str:
        if task_id not in self.in_state("waiting"):
            return "gone"
        return self.try_place(task_id, names)

    def may_claim(self, task_id: str, name: str, incarnation: int) -> bool:
        task = self.tasks.get(task_id)
        return (
            task is not None
            and task.state == "placed"
            and task.node == name
            and self.nodes[name].incarnation == incarnation
            and not self.silent(name)
        )

    def claim(self, task_id: str) -> None:
        self.tasks[task_id].state = "running"
        self.events["claimed"] += 1

    def finish(self, task_id: str, attempt: int, outcome: str, runtime_s: float | None) -> str:
        task = self.tasks.get(task_id)
        if task is None or task.state != "running" or task.attempt != attempt:
            return "stale"
        self.events["finished"] += 1
        if outcome == "requeued" and not task.revoked:
            self.park(task_id)
            return "waiting"
        follows = task.next is not None and outcome != "cancelled"
        if follows and not task.revoked:
            self.promote(task_id)
            return "next"
        if follows or outcome in ("retried", "requeued"):
            self.close(task_id, "cancelled" if task.revoked else "failed", settled=False)
            return "unsettled"
        if outcome == "succeeded" and runtime_s is not None:
            rule = LearningRule()
            self.tau = learn(self.tau, runtime_s, rule, rule.rate)
        self.close(task_id, outcome, settled=True)
        return "finished"

    def unclaim(self, task_id: str, attempt: int) -> bool:
        task = self.tasks.get(task_id)
        if task is None or task.state != "running" or task.attempt != attempt:
            return False
        if task.revoked:
            self.end_without_worker(task_id, "cancelled")
        else:
            self.park(task_id)
        return True

    def cancel(self, task_id: str) -> str:
        task = self.tasks.get(task_id)
        if task is None:
            return "unknown"
        if task.state == "running":
            task.revoked = True
        elif task.state not in FINAL:
            task.revoked = True
            self.end_without_worker(task_id, "cancelled")
        return task.state

    def hold(self, task_id: str, name: str) -> bool:
        node = self.nodes.get(name)
        if task_id not in self.in_state("waiting") or node is None or node.state != "up":
            return False
        if node.held_for not in ("", task_id):
            return False
        if node.held_for == "":
            self.drop_hold(task_id)
            node.held_for = task_id
            self.events["held"] += 1
        return True

    def register(self, name: str, node: Node) -> bool:
        """Whether it is accepted; the caller tells what was adopted (`adopt`)."""
        known = self.nodes.get(name)
        if (
            known is not None
            and known.incarnation != node.incarnation
            and known.state not in ("down", "lost")
            and not self.silent(name)
        ):
            return False
        self.nodes[name] = node
        node.heard = self.clock
        self.events["registered"] += 1
        return True

    def adopt(self, name: str, held: list[str], adopted: list[str]) -> None:
        """What the last incarnation held; which of them still fit is for the script to choose."""
        again = [i for i in held if self.tasks[i].state == "placed" or self.lose(i)]
        for task_id in again:
            task = self.tasks[task_id]
            task.node, task.state, task.devices = "", "waiting", ()
        for task_id in adopted:
            assert task_id in again
            assert self.try_place(task_id, [name]) == name
        for task_id in again:
            if task_id not in adopted:
                self.park(task_id)

    def heartbeat(self, name: str, incarnation: int) -> str:
        node = self.nodes.get(name)
        if node is None:
            return "unknown"
        if node.incarnation != incarnation:
            return "superseded"
        if node.state == "down":
            return "down"
        status = "ok"
        if node.state in ("stale", "lost"):
            node.state = "draining" if node.drain else "up"
            self.events["returned"] += 1
            status = "returned"
        node.heard, node.watched = self.clock, True
        return status

    def _leave_to_others(self, name: str) -> None:
        for task_id in [i for i, t in self.tasks.items() if t.node == name and t.state == "placed"]:
            self.park(task_id)

    def set_state(self, name: str, state: str) -> str:
        """drain (draining), undrain (up), sign_off (down) of a known incarnation."""
        node = self.nodes.get(name)
        if node is None:
            return "unknown"
        if node.state in (state, "down") or (state == "up" and not node.drain):
            return node.state
        node.drain = state == "draining"
        if state != "down" and node.state not in ("up", "draining"):
            return node.state
        node.state = state
        self.events[state] += 1
        if state != "up":
            node.held_for = ""
            self._leave_to_others(name)
        if state == "down" and not self.on(name):
            node.watched = False
        return state

    def sweep(self) -> None:
        if self.clock - self.swept > TIMEOUT_S:
            self.judge_after = self.clock + TIMEOUT_S + MARGIN_S
        self.swept = self.clock
        for task_id in self.in_state("delayed"):
            if (self.tasks[task_id].message.eta or 0.0) <= self.clock:
                self.park(task_id)
        for task_id in self.expiring():
            if (self.tasks[task_id].message.expires or 0.0) <= self.clock:
                self.end_without_worker(task_id, "expired")
        if self.clock < self.judge_after:
            return
        for name, node in self.nodes.items():
            if node.watched and self.silent(name):
                self._judge(name, node)

    def _judge(self, name: str, node: Node) -> None:
        if node.state in ("up", "draining"):
            node.state, node.held_for = "stale", ""
            self.events["stale"] += 1
        lost = self.clock - node.heard > LEASE_S + MARGIN_S
        if lost:
            node.state, node.watched = "lost", False
            self.events["lost"] += 1
        self._leave_to_others(name)
        for task_id in [i for i, t in self.tasks.items() if t.node == name and t.state == "running"] if lost else []:
            if self.lose(task_id):
                self.park(task_id)
