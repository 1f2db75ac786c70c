"""Runs a plan: load on the cluster, one injection after the other, then quiet until everything has ended."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from cloudai.names import FINAL_STATES

from ..poison import give, poisons
from .audit import Audit
from .fleet import Fleet, Node
from .history import come_back
from .load import Load, Submitted
from .machine import lose
from .plan import Injection, Plan
from .witness import Run, read_runs

#: A killed producer has said so many submissions before.
PRODUCER_TRIES = 6
PRODUCER_JOBS = 40


@dataclass(slots=True)
class Evidence:
    """All that is known after a campaign."""

    plan: Plan
    submitted: list[Submitted] = field(default_factory=list)
    #: The event stream, oldest first.
    events: list[dict[str, str]] = field(default_factory=list)
    #: What the jobs saw, by task id.
    runs: dict[str, list[Run]] = field(default_factory=dict)
    #: Celery's result by task id: state and value.
    results: dict[str, tuple[str, Any]] = field(default_factory=dict)
    #: Ledger's state by task id, at the end.
    states: dict[str, str] = field(default_factory=dict)
    leaks: dict[str, float] = field(default_factory=dict)
    max_overcommit: float = 0.0
    looks: int = 0
    heartbeats: dict[str, list[float]] = field(default_factory=dict)
    #: When Redis was away, epoch seconds.
    outages: list[tuple[float, float]] = field(default_factory=list)
    #: What was done, how often.
    injected: Counter[str] = field(default_factory=Counter)
    #: What was not, and why.
    skipped: dict[str, str] = field(default_factory=dict)
    poison_kinds: int = 0
    #: Nodes, and processes beside them, that ended by themselves.
    died: list[str] = field(default_factory=list)
    #: What the document store holds after its return, by collection and id; None: there was neither it nor control.
    history: dict[str, dict[str, dict[str, Any]]] | None = None
    #: What the control process did not come to do.
    undone: list[str] = field(default_factory=list)
    #: Epochs of the control process that have ended.
    epochs: int = 0
    took_s: float = 0.0


class Campaign:
    """One run of a plan. `say` is told what happens."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._say = say
        self._fleet = Fleet(folder, plan)
        self._evidence = Evidence(plan)
        self._todo: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._producers: list[tuple[subprocess.Popen[str], list[str]]] = []
        #: Places whose node shall not run just now.
        self._down: set[str] = set()
        self._began = 0.0

    def run(self) -> Evidence:
        """Everything that it starts has ended when it returns."""
        started = time.monotonic()
        try:
            self._fleet.start()
            self._evidence.skipped = self._fleet.skipped
            for what, why in self._fleet.skipped.items():
                self._say(f"SKIPPED: {what}: {why}")
            self._under_load()
        finally:
            self._fleet.stop()
        self._evidence.runs = read_runs(self._fleet.witnesses)
        self._evidence.took_s = time.monotonic() - started
        return self._evidence

    def _under_load(self) -> None:
        fleet, plan = self._fleet, self.plan
        audit = Audit(fleet.deployment)
        load = Load(
            fleet.app, fleet.witnesses, plan.jobs, plan.load_s, plan.seed,
            lambda: fleet.engine.image if fleet.engine else "",
        )  # fmt: skip
        if any(injection.what == "kill beat" for injection in plan.injections):
            fleet.start_beat()
        audit.start()
        load.start()
        self._began = time.monotonic()
        try:
            for injection in plan.injections:
                self._at(injection.at_s, lambda injection=injection: self._inject(injection))
            while self._todo:
                at, _, action = heapq.heappop(self._todo)
                while (wait := self._began + at - time.monotonic()) > 0:
                    time.sleep(min(wait, 0.5))
                    self._look_after_processes()
                action()
            self._mend_everything()
            load.join(max(60.0, plan.drain_s / 2))
            self._collect_producers()
            self._evidence.submitted = [*load.submitted, *self._evidence.submitted]
            self._drain()
        finally:
            load._stop.set()
            audit.stop()
        with contextlib.suppress(redis.RedisError):
            audit.look(fleet.deployment.client)
        found = self._evidence
        found.leaks, found.max_overcommit = audit.leaks, audit.max_overcommit
        found.looks, found.heartbeats = audit.looks, dict(audit.heartbeats)
        self._read_state()
        if fleet.control is not None:
            self._say(f"{time.monotonic() - self._began:6.1f} s: the document store comes back")
            found.history, found.undone = come_back(
                fleet.store, fleet.deployment, database=fleet.deployment.settings.optimiser.database,
                kill_control=self._kill_control_in_its_work, learns=plan.learns,
            )  # fmt: skip
            found.epochs = len(fleet.deployment.epochs.latest())
            self._look_after_processes()

    # --- injections

    def _at(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._todo, (at_s, next(self._order), action))

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._at(time.monotonic() - self._began + seconds, action)

    def _inject(self, injection: Injection) -> None:
        if injection.what in self._fleet.skipped and injection.what != "cut network":
            return
        passed = time.monotonic() - self._began
        self._say(f"{passed:6.1f} s: {injection.what} {injection.place} {injection.how}".rstrip())
        name = injection.what.replace(" ", "_")
        getattr(self, f"_{name}")(injection)
        self._evidence.injected[injection.what] += 1

    def _kill_node(self, injection: Injection) -> None:
        node = self._fleet.nodes[injection.place]
        node.kill()
        self._down.add(node.place)

        self._later(injection.for_s, lambda: self._bring_back(node.place, injection.how))

    def _bring_back(self, place: str, how: str) -> None:
        """The node that went down starts again; one that never comes back has an heir of another name."""
        self._down.discard(place)
        if how == "never":
            self._fleet.replace(place)
        else:
            self._fleet.nodes[place].start()

    def _lose_machine(self, injection: Injection) -> None:
        """All that runs of a node is gone at once, its containers with their engine."""
        node, engine = self._fleet.nodes[injection.place], self._fleet.engine
        self._down.add(node.place)
        of_engine = engine if engine is not None and node.place == "docker" else None
        killed = lose(node) + (of_engine.crash() if of_engine is not None else 0)
        self._say(f"         {killed} processes with it")

        def back() -> None:
            if of_engine is not None:
                of_engine.start()
            self._bring_back(node.place, injection.how)

        self._later(injection.for_s, back)

    def _restart_node(self, injection: Injection) -> None:
        """In good order, as an upgrade does it: what runs is finished first."""
        node = self._fleet.nodes[injection.place]
        node.wake()
        self._down.add(node.place)
        node.signal(signal.SIGTERM)
        tries = iter(range(120))

        def back() -> None:
            if not node.ended(0) and next(tries, None) is not None:
                self._later(0.5, back)
                return
            node.kill()
            self._down.discard(node.place)
            node.start()

        self._later(0.5, back)

    def _freeze_node(self, injection: Injection) -> None:
        node, client = self._fleet.nodes[injection.place], self._fleet.deployment.client
        if not self._fleet.is_up(node):  # it was killed a moment ago: when it is back
            self._later(2.0, lambda: self._freeze_node(injection))
            return
        node.freeze()
        try:
            held = [raw.decode() for raw in client.smembers(self._fleet.deployment.keys.node_tasks(node.name))]
        except redis.RedisError:
            node.wake()
            self._later(2.0, lambda: self._freeze_node(injection))
            return
        tries = iter(range(120))

        def wake() -> None:
            # A Python task in a thread cannot be frozen: it would run on beside whoever has it now.
            with contextlib.suppress(redis.RedisError):
                states = {self._fleet.deployment.ledger.entry(task_id).get("state", "") for task_id in held}
                if states <= FINAL_STATES | {""} or next(tries, None) is None:
                    node.wake()
                    return
            self._later(1.0, wake)

        self._later(injection.for_s, wake)

    def _redis_away(self, injection: Injection) -> None:
        began = time.time()
        if injection.how == "kill":
            self._fleet.valkey.kill()
        else:
            self._fleet.valkey.stop()

        def back() -> None:
            self._fleet.valkey.start()
            self._evidence.outages.append((began, time.time()))

        self._later(injection.for_s, back)

    def _cut_network(self, injection: Injection) -> None:
        self._fleet.cut_network()
        self._later(injection.for_s, self._fleet.mend_network)

    def _fill_disk(self, injection: Injection) -> None:
        self._fleet.fill_disk()
        self._later(injection.for_s, self._fleet.free_disk)

    def _fill_redis(self, injection: Injection) -> None:
        client = self._fleet.deployment.client
        try:
            client.config_set("maxmemory", 1)
        except redis.RedisError:  # it is away just now
            self._later(2.0, lambda: self._fill_redis(injection))
            return
        self._later(injection.for_s, self._empty_redis)

    def _empty_redis(self) -> None:
        with contextlib.suppress(redis.RedisError):  # a restart forgets it too
            self._fleet.deployment.client.config_set("maxmemory", 0)

    def _restart_engine(self, injection: Injection) -> None:
        engine = self._fleet.engine
        assert engine is not None
        engine.stop()
        self._later(injection.for_s, engine.start)

    def _kill_beat(self, injection: Injection) -> None:
        assert self._fleet.beat is not None
        self._kill_beside(self._fleet.beat, self._fleet.start_beat)

    def _kill_beside(self, process: Node, start: Callable[[], None]) -> None:
        process.kill()
        self._down.add(process.place)

        def back() -> None:
            self._down.discard(process.place)
            start()

        self._later(1.0, back)

    def _kill_control(self, injection: Injection) -> None:
        assert self._fleet.control is not None
        self._kill_beside(self._fleet.control, self._fleet.start_control)

    def _kill_control_in_its_work(self) -> None:
        assert self._fleet.control is not None
        self._fleet.control.kill()
        self._evidence.injected["kill control"] += 1
        self._fleet.start_control()

    def _kill_producer(self, injection: Injection) -> None:
        """A producer submits as fast as it can and is killed after some submissions, most likely inside one."""
        with (self._fleet.logs / "producer.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "faults.producer", str(PRODUCER_JOBS)],
                env=self._fleet.environment(self._fleet.sections()), stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        lines: list[str] = []
        self._producers.append((process, lines))

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.strip())
                if sum(said.startswith("try") for said in lines) >= PRODUCER_TRIES:
                    process.kill()
                    lines.extend(rest.strip() for rest in process.stdout)

        threading.Thread(target=read, daemon=True).start()

    def _poison(self, injection: Injection) -> None:
        client, frames = self._fleet.deployment.client, poisons()
        try:
            for node in self._fleet.nodes.values():
                for frame in frames:
                    give(client, frame, node.name)
        except redis.RedisError:  # it is away just now
            self._later(2.0, lambda: self._poison(injection))
            return
        self._evidence.poison_kinds = len(frames)

    # --- between and after them

    def _look_after_processes(self) -> None:
        """One that ended although nobody killed it is a finding; it is started again."""
        for process in [*self._fleet.nodes.values(), *self._fleet.beside]:
            if not process.alive and process.place not in self._down:
                passed = time.monotonic() - self._began
                self._evidence.died.append(f"{process.name} at {passed:.0f} s (log {process.log.name})")
                self._say(f"FOUND: {self._evidence.died[-1]} ended by itself")
                process.start()

    def _mend_everything(self) -> None:
        fleet = self._fleet
        if not fleet.valkey.is_running():
            fleet.valkey.start()
        self._empty_redis()
        fleet.free_disk()
        fleet.mend_network()
        for node in fleet.nodes.values():
            node.wake()
            node.start()
        if fleet.control is not None:
            fleet.start_control()
        if fleet.beat is not None:
            self._down.add(fleet.beat.place)
            fleet.beat.kill()

    def _collect_producers(self) -> None:
        for process, lines in self._producers:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            time.sleep(0.1)
            accepted = {line[3:] for line in lines if line.startswith("ok ")}
            for line in list(lines):
                if line.startswith("try "):
                    task_id = line[4:]
                    self._evidence.submitted.append(
                        Submitted("killed producer", [task_id], 1, task_id in accepted, "its producer was killed")
                    )
            if process.stdout is not None:
                process.stdout.close()

    def _drain(self) -> None:
        """Wait until nothing is unfinished; the patience begins anew with everything that ends."""
        client, keys = self._fleet.deployment.client, self._fleet.deployment.keys
        left, patience = -1, time.monotonic() + self.plan.drain_s
        give_up = time.monotonic() + 3 * self.plan.drain_s
        while time.monotonic() < min(patience, give_up):
            self._look_after_processes()
            with contextlib.suppress(redis.RedisError):
                live = int(client.get(keys.prefix + "live") or 0) + client.zcard(keys.unsettled)
                live += sum(not self._has_ended(one) for one in self._evidence.submitted if one.accepted)
                if live == 0:
                    return
                if live != left:
                    left, patience = live, time.monotonic() + self.plan.drain_s
            time.sleep(0.5)
        self._say(f"FOUND: after {self.plan.drain_s:g} s without progress {left} tasks or jobs have not ended")

    def _has_ended(self, one: Submitted) -> bool:
        """Whether the result of the last task is there, or of one that failed before it."""
        backend = self._fleet.app.backend
        for task_id in reversed(one.task_ids):
            state = self._evidence.results.get(task_id, ("", None))[0]
            if not state:
                meta = backend.get_task_meta(task_id, cache=False)
                if meta["status"] in ("SUCCESS", "FAILURE", "REVOKED"):
                    state = meta["status"]
                    self._evidence.results[task_id] = (state, meta.get("result"))
            if state and (task_id == one.task_ids[-1] or state != "SUCCESS"):
                return True
        return False

    def _read_state(self) -> None:
        found, deployment = self._evidence, self._fleet.deployment
        client, keys = deployment.client, deployment.keys
        found.events = [
            {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
            for _, fields in client.xrange(keys.events)
        ]
        ids = {event["id"] for event in found.events if event["event"] == "submitted"}
        ids |= {task_id for one in found.submitted for task_id in one.task_ids}
        for task_id in ids:
            found.states[task_id] = deployment.ledger.entry(task_id).get("state", "")
        for node in deployment.fleet.names():
            entry = deployment.fleet.entry(node)
            for amount in ("cpu", "memory", "storage", "slots"):
                if entry and entry[amount] != entry[f"{amount}_capacity"]:
                    held = sorted(client.smembers(keys.node_tasks(node)))
                    whole = entry[f"{amount}_capacity"]
                    found.leaks[f"{node}: {amount} {entry[amount]} of {whole} free at the end; holds {held}"] = 0.0
        for key in client.scan_iter(f"{keys.prefix}message:*", count=1000):
            task_id = key.decode().rpartition(":")[2]
            if found.states.get(task_id, "") in FINAL_STATES | {""}:
                found.leaks[f"the message of {task_id} is left behind"] = 0.0
