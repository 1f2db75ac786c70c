"""Runs a plan: few nodes, all of them, steady load, a burst, losses, and quiet until everything has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from ..conftest import leaked_keys
from ..faults.audit import Audit
from .fleet import Fleet
from .load import Load, Submitted
from .measure import Meter, dispatch_lags, placements_a_second, quantile, stream_memory, used_memory
from .observer import Event, IdleWatch, Passed, Recorder
from .plan import Plan, draw_fleet, draw_jobs, draw_loss

#: Between two looks at what is awaited, seconds.
_POLL_S = 0.1


@dataclass(slots=True)
class Evidence:
    """All that is known after a run."""

    plan: Plan
    #: Kind of job by task id, of all that was accepted.
    kinds: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    #: The event stream, oldest first.
    events: list[Event] = field(default_factory=list)
    #: Events that nobody read.
    dropped: int = 0
    #: What the nodes saw: task, attempt, node, stretches, whether it came to its end.
    runs: list[list[Any]] = field(default_factory=list)
    #: Task ids of the reports that the ledger took as a task's end.
    completed: list[str] = field(default_factory=list)
    #: Tasks that the ledger still counts: alive, waiting, delayed, about to be settled.
    unfinished: dict[str, int] = field(default_factory=dict)
    unsettled: int = 0
    leaks: list[str] = field(default_factory=list)
    max_overcommit: float = 0.0
    looks: int = 0
    #: Keys that no rule owns, and entries that outlived their time.
    keys: list[str] = field(default_factory=list)
    #: Of Redis's memory from before the load to the end, without the stream, bytes; entries of the stream.
    growth: int = 0
    stream_length: int = 0
    passed: dict[str, Passed] = field(default_factory=dict)
    idle_looks: int = 0
    #: Nodes that fell silent, and attempts that were lost with them.
    silent: int = 0
    attempts_lost: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    took_s: float = 0.0


class Campaign:
    """One run of a plan. `say` is told what happens."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._say = say
        self._fleet = Fleet(folder, plan)
        self._found = Evidence(plan)
        self._began = time.monotonic()
        self._client: redis.Redis
        self._load: Load
        self._meter: Meter

    def run(self) -> Evidence:
        """Run all of it."""
        found = self._found
        with self._fleet as fleet, redis.Redis.from_url(fleet.server.url, decode_responses=True) as client:
            self._client = client
            self._meter = Meter(client, found.figures)
            self._load = Load(self.plan, fleet.server.url)
            deployment = self._load.app.deployment
            audit = Audit(deployment, self.plan.audit_every_s)
            recorder = Recorder(deployment, self.plan.keep_events)
            idle = IdleWatch(self.plan, fleet.server.url)
            try:
                recorder.start()
                audit.start()
                self._phases(idle)
                self._after(recorder, audit, idle)
            finally:
                idle.stop()
                audit.stop()
                recorder.stop()
                self._load.close()
        found.took_s = time.monotonic() - self._began
        return found

    # --- phases

    def _phases(self, idle: IdleWatch) -> None:
        plan, meter, load = self.plan, self._meter, self._load
        self._fleet.join(range(plan.few))
        self._tell(f"{plan.few} nodes")
        first = load.pace(draw_jobs(plan, "first", plan.first), plan.first, plan.first_s)
        self._took(first)
        meter.submissions(f"{plan.few}_nodes", first.seconds)
        before = self._memory()
        begun = time.monotonic()
        self._fleet.join(range(plan.few, plan.nodes))
        meter.note("join_s", time.monotonic() - begun)
        self._tell(f"{plan.nodes} nodes, {sum(n.capacity.slots for n in draw_fleet(plan))} slots")
        with meter.phase("idle"):
            time.sleep(plan.first_s)
        # Redis takes a second to know what its new connections use.
        self._before = self._memory()
        if plan.nodes > plan.few:
            meter.note("redis_bytes_per_node", (self._before - before) / (plan.nodes - plan.few))
        with meter.phase("steady"):
            steady = load.pace(draw_jobs(plan, "steady", plan.steady), plan.steady, plan.steady_s)
        self._took(steady)
        meter.submissions(f"{plan.nodes}_nodes", steady.seconds)
        meter.note("slots_used_steady", self._slots_used())
        meter.refresh(load.app.deployment, min(1.0, plan.steady_s / 4))
        meter.look("short", load.app.deployment)
        self._tell(f"steady: {plan.steady} in {steady.took_s:.1f} s, {meter.figures['slots_used_steady']:.0%} of slots")
        self._burst_begun = time.time()
        memory, live = self._memory(), self._live()
        with meter.phase("burst"):
            burst = load.burst(draw_jobs(plan, "burst", plan.burst))
        meter.note("dispatches_by_submissions_burst", load.dispatches)
        self._took(burst)
        grown = self._memory() - memory
        meter.note("redis_bytes_per_task_in_flight", grown / max(1, self._live() - live))
        meter.submissions("burst", burst.seconds)
        meter.note("submissions_per_s_burst", len(burst.kinds) / burst.took_s)
        meter.look("long", load.app.deployment)
        self._tell(
            f"burst: {plan.burst} in {burst.took_s:.1f} s, {meter.figures['waiting_long']:.0f} wait; "
            f"a look takes {meter.figures['look_ms_long']:.1f} ms"
        )
        idle.start()
        with meter.phase("losses"):
            self._lose(burst)
        with meter.phase("drain"):
            self._drain()

    def _lose(self, burst: Submitted) -> None:
        """Nodes fall silent, come back, drain; meanwhile what is to be cancelled is."""
        plan, fleet, loss = self.plan, self._fleet, draw_loss(self.plan)
        canceller = threading.Thread(
            target=self._cancel, args=([i for i, kind in burst.kinds.items() if kind == "cancelled"],)
        )
        canceller.start()
        time.sleep(plan.silent_after_s)
        silent_at = time.monotonic()
        fleet.lose_power(loss.gone + loss.early + loss.late)
        fleet.cut_off(loss.cut)
        self._found.silent = len(loss.silent())
        self._tell(f"{len(loss.silent())} nodes have fallen silent")
        names = [node.name for node in draw_fleet(plan)]
        for place in loss.drained + loss.leaving:
            self._load.app.deployment.fleet.drain(names[place])
        _sleep_until(silent_at + plan.early_s)
        fleet.join(loss.early)
        self._tell(f"{len(loss.early)} of them are back as new incarnations, within their lease")
        leaving = loss.leaving
        while time.monotonic() < silent_at + plan.late_s:
            left = fleet.sign_off(leaving)
            leaving = [place for place in leaving if place not in left]
            time.sleep(_POLL_S)
        fleet.join(loss.late)
        fleet.reconnect(loss.cut)
        for place in loss.drained:
            self._load.app.deployment.fleet.undrain(names[place])
        self._tell(f"{len(loss.late)} more are, {len(loss.cut)} as they were, {len(loss.drained)} drained ones too")
        while leaving and time.monotonic() < silent_at + plan.late_s + plan.drain_s:
            left = fleet.sign_off(leaving)
            leaving = [place for place in leaving if place not in left]
            time.sleep(_POLL_S)
        canceller.join()

    def _drain(self) -> None:
        """Wait until all has ended but what no node can hold, and cancel that."""
        never = [task_id for task_id, kind in self._found.kinds.items() if kind == "never"]
        said, deadline = 0.0, time.monotonic() + self.plan.drain_s
        while self._live() > len(never) and time.monotonic() < deadline:
            if time.monotonic() - said > 15.0:
                said = time.monotonic()
                running, late_s = self._fleet.running()
                waiting = self._client.zcard(self._load.app.deployment.keys.waiting)
                self._tell(f"{self._live()} live, {waiting} wait, {running} run; heartbeats up to {late_s:.1f} s late")
            time.sleep(_POLL_S)
        self._drained = time.time()
        self._cancel(never)
        while (self._live() or self._unsettled()) and time.monotonic() < deadline + 10.0:
            time.sleep(_POLL_S)
        self._tell("all has ended" if not self._live() else f"{self._live()} have not ended")

    def _after(self, recorder: Recorder, audit: Audit, idle: IdleWatch) -> None:
        """Look at what is left, once entries with a TTL are gone."""
        found, keys, meter = self._found, self._load.app.deployment.keys, self._meter
        found.unsettled = self._unsettled()
        found.unfinished = {
            name: count
            for name, count in {
                "live": self._live(),
                "waiting": self._client.zcard(keys.waiting),
                "delayed": self._client.zcard(keys.delayed),
            }.items()
            if count
        }
        runs, completed, times = self._fleet.tell()
        found.runs, found.completed = runs, completed
        idle.stop()
        found.passed, found.idle_looks = idle.longest, idle.looks
        audit.stop()
        found.leaks, found.max_overcommit, found.looks = list(audit.leaks), audit.max_overcommit, audit.looks
        for name in self._load.app.deployment.fleet.names():
            wrong = self._load.app.deployment.fleet.audit(name)
            if wrong:
                found.leaks.append(f"{name}, at the end: {wrong}")
        totals = self._load.app.deployment.ledger.totals()
        found.attempts_lost = totals.get("attempts_lost", 0)
        if totals.get("reservation_leaks"):
            found.leaks.append(f"put right by nodes and at the end: {totals['reservation_leaks']}")
        self._leftovers()
        recorder.stop()
        found.events, found.dropped = recorder.events, recorder.dropped
        found.stream_length = int(self._client.xlen(keys.events))
        found.growth = self._memory() - self._before
        meter.note("stream_mib", stream_memory(self._client, keys.events) / 2**20)
        for what, seconds in times.items():
            meter.note(f"{what}", len(seconds))
            meter.note(f"{what}_p50_ms", quantile(seconds, 0.5) * 1e3)
            meter.note(f"{what}_p99_ms", quantile(seconds, 0.99) * 1e3)
        lags = dispatch_lags(found.events, self._burst_begun, self._drained)
        meter.note("dispatch_lag_p50_ms", quantile(lags, 0.5) * 1e3)
        meter.note("dispatch_lag_p90_ms", quantile(lags, 0.9) * 1e3)
        during = [event for event in found.events if self._burst_begun <= event.at <= self._drained]
        usual, most = placements_a_second(during)
        meter.note("placements_per_s_median", usual)
        meter.note("placements_per_s_most", most)

    def _leftovers(self) -> None:
        """Entries of ended tasks go with their TTL; then no key may be left that is not a node's, or one of a kind."""
        prefix = self._load.app.deployment.keys.prefix
        ours = [f"{prefix}{kind}:*" for kind in ("task", "message", "next", "decision", "waiting:shape")]
        deadline = time.monotonic() + self.plan.ttl_s + 15.0
        while True:
            left = [key for pattern in ours for key in self._client.scan_iter(match=pattern, count=5000)]
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        self._found.keys = [f"{key}: its TTL is over, or it has none" for key in left]
        self._found.keys += list(leaked_keys(self._client))

    # --- looking

    def _took(self, submitted: Submitted) -> None:
        self._found.kinds.update(submitted.kinds)
        self._found.refused += submitted.refused

    def _cancel(self, task_ids: list[str]) -> None:
        for task_id in task_ids:
            self._load.app.control.revoke(task_id)

    def _memory(self) -> int:
        """Of Redis, without the stream, bytes."""
        return used_memory(self._client) - stream_memory(self._client, self._load.app.deployment.keys.events)

    def _live(self) -> int:
        return int(self._client.get(self._load.app.deployment.keys.live) or 0)

    def _unsettled(self) -> int:
        return int(self._client.zcard(self._load.app.deployment.keys.unsettled))

    def _slots_used(self) -> float:
        view = self._load.app.deployment.view
        view.refresh()
        return 1.0 - float(view.snapshot.slots.sum()) / max(1.0, float(view.snapshot.slots_capacity.sum()))

    def _tell(self, what: str) -> None:
        self._say(f"{time.monotonic() - self._began:6.1f} s  {what}")


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
