"""A node whose containers are timers; the rest is the product's: the scripts, and the worker's own parts around them.

    a doorbell       BRPOP, claim, note the claim (Holding), start a timer
    a timer          the job has ended: tell the clerk (Clerk), which reports, and dispatches who waits
    a heartbeat      as the worker's heart; what was paused while it could not renew its lease is asked for (Lease)
    upkeep           the sweep if it is its turn, doorbells, words compared, reservations audited (Upkeep)
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from redis.exceptions import RedisError

from cloudai import CloudAI
from cloudai.names import SUCCEEDED, node_queue
from cloudai.state.attempts import Claim
from cloudai.state.fleet import Registration
from cloudai_workers.adoption import Adoption
from cloudai_workers.clerk import Clerk
from cloudai_workers.fence import Hearing
from cloudai_workers.holding import Holding
from cloudai_workers.joining import join_fleet
from cloudai_workers.lease import Lease, now_s
from cloudai_workers.overload import OverloadClock
from cloudai_workers.upkeep import Upkeep

from .plan import DrawnNode, Plan

#: A node's connection waits for a doorbell so long at a time, seconds.
_LISTEN_S = 5
#: Doorbells that are answered in one round trip, as by the transport.
_TOGETHER = 8


class _NoContainers:
    """There is nothing on the machine that an earlier incarnation left."""

    def end_orphans(self) -> None:
        """None."""


@dataclass(slots=True)
class Run:
    """One attempt on one node, as the node itself saw it. Moments on the boot clock of the machine, seconds."""

    task_id: str
    attempt: int
    node: str
    #: When it ends, if nothing comes between.
    due: float
    #: When it really ran, from and to.
    stretches: list[tuple[float, float]] = field(default_factory=list)
    #: Since when it runs; None: it is paused or over.
    since: float | None = None
    ended: bool = False

    def stop(self, at: float) -> None:
        """It does not run from then on."""
        if self.since is not None:
            self.stretches.append((self.since, max(self.since, at)))
            self.since = None


class Node:
    """One incarnation of a simulated node. `at(moment, call)` calls back, `witness` gets its runs."""

    def __init__(
        self, app: CloudAI, plan: Plan, drawn: DrawnNode, at: Callable[[float, Callable[[], None]], None],
        witness: list[Run],
    ) -> None:  # fmt: skip
        self.app = app
        self.drawn = drawn
        self.name = drawn.name
        self.incarnation = secrets.token_hex(8)
        self.cut = False
        self._plan = plan
        self._deployment = app.deployment
        self._at = at
        self._witness = witness
        self._chance = random.Random(f"{plan.seed} {self.incarnation}")
        self._hearing = Hearing(plan.heartbeat_timeout_s)
        self._overload = OverloadClock()
        self._holding = Holding(
            app, self._deployment, self.name, self.incarnation, self._hearing, self._overload
        )
        self._clerk = Clerk(
            self._deployment, node=self.name, first=lambda: None, claim_of=self._holding.claim_of,
            overload_of=self._holding.overload_of, reported=self._holding.drop,
        )  # fmt: skip
        self._upkeep = Upkeep(app, self.name, self._holding, cast(Adoption, _NoContainers()), self._clerk)
        self._lease = Lease(plan.lease_s, plan.margin_s)
        #: Guards what follows, and the lease.
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, int], Run] = {}
        self._over = False
        self._listener: Any = None
        #: Ended while it was cut off: told when it can speak again.
        self._untold: list[Run] = []

    # --- life

    def join(self) -> None:
        """Register, as the worker does: the name may be held for a while."""
        node, plan = self.drawn, self._plan

        def register() -> Registration:
            return self._deployment.fleet.register(
                self.name, self.incarnation, node.capacity, labels=node.labels, timeout_s=plan.heartbeat_timeout_s,
                lease_s=plan.lease_s, pressure=node.pressure, max_attempts=self.app.settings.limits.max_attempts,
                finished_ttl_s=plan.ttl_s, home=self.name, margin_s=plan.margin_s,
                shown={"host": self.name, "pid": "1", "version": "scale", "runner": "none", "pool": "timers"},
            )  # fmt: skip

        _, sent = join_fleet(
            self.name, register, timeout_s=plan.heartbeat_timeout_s, lost_after_s=plan.lease_s + plan.margin_s,
            retry_s=plan.heartbeat_interval_s,
        )  # fmt: skip
        self._lease.renewed(sent)
        self._hearing.heard()
        self._clerk.start()
        threading.Thread(target=self._listen, name=f"doorbell-{self.name}", daemon=True).start()
        self._clerk.dispatch()

    def lose_power(self) -> None:
        """All ends at once; nobody is told."""
        now = now_s()
        with self._lock:
            self._over = True
            for run in self._runs.values():
                run.stop(min(now, run.due, self._lease.pause_at))
            self._runs.clear()
        self._hang_up()
        # It may be in the middle of something, which nobody waits for.
        threading.Thread(target=self._clerk.close, args=(0.0,), daemon=True).start()

    def cut_off(self) -> None:
        """The network is gone: jobs go on until the lease is over, and nobody hears of it."""
        with self._lock:
            self.cut = True
        self._hang_up()

    def reconnect(self) -> None:
        """The network is back."""
        self.cut = False
        self.beat()
        threading.Thread(target=self._listen, name=f"doorbell-{self.name}", daemon=True).start()

    def sign_off(self) -> bool:
        """Leave in good order, if nothing runs any more; whether it does."""
        with self._lock:
            if self._runs:
                return False
            self._over = True
        self._hang_up()
        threading.Thread(target=self._leave, daemon=True).start()
        return True

    def _leave(self) -> None:
        self._clerk.close(30.0)
        self._holding.give_back_all()
        self._deployment.fleet.sign_off(self.name, self.incarnation)

    def running(self) -> int:
        """Jobs that have not ended."""
        return len(self._runs)

    # --- the heart

    def beat(self) -> None:
        """One heartbeat; what it says of the lease and of the jobs."""
        if self._over or self.cut:
            return
        pressure = max(0.0, self.drawn.pressure + self._chance.gauss(0, 0.02))
        self._overload.tell(pressure)
        sent = now_s()
        beat = self._deployment.fleet.heartbeat(
            self.name, self.incarnation, pressure=round(pressure, 4), usage={"cpu_pressure": round(pressure, 4)},
            publish_after_s=self._plan.heartbeat_timeout_s / 3,
        )  # fmt: skip
        lapsed = self._hearing.heard()
        if beat.status not in ("ok", "returned"):
            return
        with self._lock:
            paused = self._paused_by(now_s())
            self._lease.renewed(sent)
            untold, self._untold = self._untold, []
        if beat.status == "returned" or lapsed:
            for run in list(self._runs.values()):
                if run.since is not None and not self._deployment.ledger.is_current(run.task_id, run.attempt):
                    self._supersede(run)
        for run, since in paused:
            if self._deployment.ledger.resume(run.task_id, run.attempt, self.name, max(0.0, now_s() - since)):
                self._start(run, run.due - since)
            else:
                self._supersede(run)
        for run in untold:
            self._tell(run)

    def upkeep(self) -> None:
        """What the worker's heart does twice a second."""
        if not (self._over or self.cut):
            self._upkeep.sweep()
            self._upkeep.compare()

    def _paused_by(self, now: float) -> list[tuple[Run, float]]:
        """Jobs that are paused, and since when: the lease was over before they were."""
        pause_at = self._lease.pause_at
        if now < pause_at:
            return []
        found = []
        for run in list(self._runs.values()):
            if run.due <= pause_at:
                self._end(run, run.due)
            else:
                run.stop(pause_at)
                found.append((run, pause_at))
        return found

    # --- jobs

    def _listen(self) -> None:
        """Answer doorbells, as the worker's consumer does."""
        pool = self._deployment.client.connection_pool
        connection = pool.get_connection()
        self._listener = connection
        try:
            while not (self._over or self.cut):
                connection.send_command("BRPOP", node_queue(self.name), _LISTEN_S)
                reply = connection.read_response()
                if reply is not None:
                    self._answer(reply[1].decode())
        except (RedisError, OSError, AttributeError, ValueError):
            if not (self._over or self.cut):
                raise
        finally:
            connection.disconnect()
            pool.release(connection)

    def _answer(self, task_id: str) -> None:
        ledger = self._deployment.ledger
        for claim in ledger.claim_several(task_id, self.name, self.incarnation, more=_TOGETHER - 1):
            if self._holding.take(claim) == "" and not self._over:
                seconds, kind = _asked(claim)
                run = Run(claim.task_id, claim.attempt, self.name, 0.0)
                self._witness.append(run)
                self._start(run, seconds * self.drawn.slowness[kind] * self._chance.uniform(0.95, 1.05))

    def _start(self, run: Run, seconds: float) -> None:
        with self._lock:
            if self._over:
                return
            run.since = now_s()
            run.due = run.since + max(0.0, seconds)
            self._runs[run.task_id, run.attempt] = run
        self._at(run.due, lambda: self._due(run))

    def _due(self, run: Run) -> None:
        """A timer has run out: the job has ended, if it was not paused before."""
        with self._lock:
            known = self._runs.get((run.task_id, run.attempt)) is run
            if not known or run.since is None or now_s() < run.due or run.due > self._lease.pause_at:
                return
            self._end(run, run.due)
            if self.cut:
                return
            self._untold.remove(run)
        self._tell(run)

    def _end(self, run: Run, at: float) -> None:
        run.stop(at)
        run.ended = True
        self._untold.append(run)
        del self._runs[run.task_id, run.attempt]

    def _tell(self, run: Run) -> None:
        runtime = sum(end - begun for begun, end in run.stretches)
        started = time.time() - (now_s() - run.stretches[0][0])
        self._clerk.ended(run.task_id, run.attempt, SUCCEEDED, runtime_s=max(runtime, 1e-6), started=started)

    def _supersede(self, run: Run) -> None:
        with self._lock:
            run.stop(min(now_s(), run.due))
            self._runs.pop((run.task_id, run.attempt), None)
        self._holding.drop(run.task_id, run.attempt)

    def _hang_up(self) -> None:
        # A reader of the connection wakes up with an error.
        with contextlib.suppress(OSError, AttributeError):
            self._listener._sock.shutdown(socket.SHUT_RDWR)


def _asked(claim: Claim) -> tuple[float, str]:
    """Work and type of a task, from its Celery message."""
    body = json.loads(base64.b64decode(json.loads(claim.message)["body"]))
    seconds, kind = body[0]
    return float(seconds), str(kind)
