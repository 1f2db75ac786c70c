"""A node: one worker process that has joined the fleet.

    join            register, start the heart and the clerk
    while it runs   the heart beats (telemetry, sweep, doorbells); the clerk reports ends and dispatches
    stop_taking     drain: nothing new is placed here
    leave           report what is outstanding, sign off

An incarnation joins once; a worker that starts again is a new one.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
import time
from pathlib import Path
from typing import Any

import click
from redis.exceptions import RedisError

from cloudai import node_hooks
from cloudai.state.fleet import Registration
from cloudai_workers import this_node
from cloudai_workers.adoption import Adoption
from cloudai_workers.after_silence import AfterSilence
from cloudai_workers.announcement import Announcement
from cloudai_workers.capacity import Telemetry
from cloudai_workers.clerk import Clerk
from cloudai_workers.deliveries import Deliveries
from cloudai_workers.fence import Hearing
from cloudai_workers.guard import Guard
from cloudai_workers.holding import Holding
from cloudai_workers.joining import join_fleet, when_redis_answers
from cloudai_workers.keeper import LeaseKeeper
from cloudai_workers.lease import Lease, now_s
from cloudai_workers.overload import OverloadClock
from cloudai_workers.runner_choice import make_runner
from cloudai_workers.runners.base import Runner, StopHandle
from cloudai_workers.running import running_jobs
from cloudai_workers.tenancy import Tenancy
from cloudai_workers.upkeep import Upkeep

logger = logging.getLogger(__name__)

#: Time to make outstanding reports at shutdown.
REPORT_TIMEOUT_S = 30.0


class Node:
    """One incarnation of a node. Made before the pool starts, joins when it is up."""

    def __init__(self, app: Any, name: str) -> None:
        self.app = app
        self.name = name
        self.settings = app.settings.node
        self.deployment = app.deployment
        self.deployment.continues = True
        self.incarnation = secrets.token_hex(8)
        #: Of the worker's own process; children of its pool see another one.
        self.pid = os.getpid()
        self.work_dir = Path(self.settings.work_dir or click.get_app_dir("cloudai")) / name
        # Made before the pool forks its children.
        self.hearing = Hearing(self.settings.heartbeat_timeout_s)
        self._overload = OverloadClock()
        self.holding = Holding(app, self.deployment, name, self.incarnation, self.hearing, self._overload)
        self.clerk = Clerk(
            self.deployment,
            node=name,
            first=self._drain_if_leaving,
            claim_of=self.holding.claim_of,
            overload_of=self.holding.overload_of,
            reported=self.holding.drop,
        )
        namespace = self.deployment.keys.namespace
        self._tenancy = Tenancy(self.work_dir, namespace, self.incarnation)
        self.runner: Runner = make_runner(self.settings, name, namespace, self.work_dir, self._tenancy.holds)
        self._adoption = Adoption(self.runner, self.deployment.ledger, name)
        self._guard = Guard(
            {
                "node": name,
                "namespace": namespace,
                "incarnation": self.incarnation,
                "folder": str(self.work_dir.resolve()),
                "runner": self.settings.runner,
                "engine": self.settings.docker_url,
                "pauses": self.settings.on_disconnect == "pause",
            }
        )
        self.keeper = LeaseKeeper(
            Lease(self.settings.lease_s, self.settings.lease_margin_s),
            self.runner,
            jobs=running_jobs,
            tenant=self._tenancy.holds,
            pauses=self.settings.on_disconnect == "pause",
        )
        self._telemetry = Telemetry()
        self.announcement = Announcement(
            app, name, self.incarnation, self.runner, self._adoption, self._telemetry,
            pause_after_s=self.keeper.lease.pause_after_s, changed=self.clerk.dispatch,
        )  # fmt: skip
        self._after_silence = AfterSilence(name, self.deployment.ledger, self.keeper, self._guard, self._tenancy)
        self._upkeep = Upkeep(app, name, self.holding, self._adoption, self.clerk)
        self.deliveries = Deliveries(
            app, self.incarnation, self.holding, self.clerk,
            gives_back=lambda: self._leaving and self.announcement.has_threads,
        )  # fmt: skip
        self._stopping = threading.Event()
        self._leaving = False
        self._drained = False
        self._heart = threading.Thread(target=self._beat, name="cloudai-heart", daemon=True)
        node_hooks.set_hooks(self.deliveries)

    # --- life

    def join(self, worker: Any) -> None:
        """Register with the fleet and begin to beat. NodeRefused when another live node has the name."""
        self.announcement.prepare(worker, self.work_dir)
        self._watch_over(self._register().adopting)
        this_node.become(self)
        self.hearing.heard()
        self.keeper.start()
        self.clerk.start()
        self._heart.start()
        self.announcement.start()
        capacity = self.announcement.capacity
        logger.info(
            "node-joined node=%s incarnation=%s cpu=%g memory=%.2fGiB gpus=%d slots=%d runner=%s labels=%s",
            self.name, self.incarnation, capacity.cpu_milli / 1000, capacity.memory_kib / 2**20,
            len(capacity.gpus), capacity.slots, self.runner.name, self.announcement.labels(),
        )  # fmt: skip
        self.clerk.dispatch()

    def _watch_over(self, adopting: tuple[str, ...]) -> None:
        """Take over what an earlier incarnation left on this machine, and have it guarded."""
        try:
            self._tenancy.take()
        except OSError as error:
            logger.warning(
                "guardian-missing node=%s: its folder cannot be written, so if this worker is killed, its containers "
                "run on until the node starts again (%s)", self.name, error,
            )  # fmt: skip
        else:
            self._guard.start()
            self._guard.renewed(self.keeper.lease)
        if self.announcement.can_run:
            when_redis_answers(self.name, lambda: self._adoption.take_over(adopting))
        if adopting:
            self._guard.used()

    def will_run_job(self, control: StopHandle) -> None:
        """A container job is about to start: returns when it may, or when it is stopped."""
        self._guard.used()
        self.keeper.wait_valid(control)

    def _register(self) -> Registration:
        """Join the fleet, and take over what an earlier incarnation held there."""
        answer, sent = join_fleet(
            self.name,
            self.announcement.register,
            timeout_s=self.settings.heartbeat_timeout_s,
            lost_after_s=self.settings.lease_s + self.settings.lease_margin_s,
            retry_s=self.settings.heartbeat_interval_s,
        )
        self.keeper.renewed(sent)
        if answer.adopted:
            logger.warning(
                "tasks-adopted node=%s count=%d attached=%d: the last incarnation left them",
                self.name, len(answer.adopted), len(answer.adopting),
            )  # fmt: skip
        return answer

    def shutting_down(self) -> None:
        """A signal has announced the shutdown: heart and clerk will drain the node. Safe in a signal handler."""
        self._leaving = True

    def stop_taking(self) -> None:
        """Shutdown begins: nothing new is placed here, and what was not claimed goes elsewhere."""
        if this_node.current() is not self:
            return
        self._leaving = True
        try:
            self._drain_if_leaving()
        except RedisError as error:
            logger.warning("drain-failed node=%s: the heart tries again (%s)", self.name, error)

    def _drain_if_leaving(self) -> None:
        # Before any report too: what a cold shutdown gives back must not come here again.
        if self._leaving and not self._drained:
            self.deployment.fleet.drain(self.name)
            self._drained = True

    def leave(self, *, warm: bool) -> None:
        """The pool has finished: report what is outstanding and sign off."""
        if this_node.current() is not self:
            return
        left = self.clerk.close(REPORT_TIMEOUT_S if warm else 2.0)
        self._stopping.set()
        self.announcement.stop()
        self.keeper.stop()
        if left:
            logger.error("reports-lost node=%s count=%d: the lease will free what they held", self.name, left)
        try:
            given_back = self.holding.give_back_all() if not left else 0
            if given_back:
                logger.warning("tasks-given-back node=%s count=%d: they had not ended", self.name, given_back)
            self.deployment.fleet.sign_off(self.name, self.incarnation)
        except RedisError as error:
            logger.warning("sign-off-failed node=%s: the heartbeat timeout will do it (%s)", self.name, error)
        self._guard.close()
        this_node.become(None)
        logger.info("node-left node=%s", self.name)

    # --- heart

    def _beat(self) -> None:
        interval = self.settings.heartbeat_interval_s
        tick = min(0.5, interval)
        due = time.monotonic()
        while not self._stopping.wait(tick):
            try:
                now = time.monotonic()
                if now >= due:
                    due = now + interval
                    self._heartbeat()
                self._drain_if_leaving()
                self._upkeep.sweep()
                self._upkeep.compare()
            except RedisError as error:
                logger.warning("heartbeat-failed node=%s: Redis is away (%s)", self.name, error)
            except Exception:
                logger.exception(
                    "heartbeat-failed node=%s: a defect, please report it; the next beat tries again", self.name
                )

    def _heartbeat(self) -> None:
        sample = self._telemetry.sample()
        self._overload.tell(sample.pressure)
        overload_s, excess_s = self._overload.read()
        sent = now_s()
        beat = self.deployment.fleet.heartbeat(
            self.name,
            self.incarnation,
            pressure=round(sample.pressure, 4),
            usage={
                "cpu_pressure": round(sample.cpu_pressure, 4),
                "cpu_use": round(sample.cpu_use, 4),
                "memory_use": round(sample.memory_use, 4),
                "gpu_use": round(sample.gpu_use, 4),
                "overload_s": round(overload_s, 3),
                "overload_excess_s": round(excess_s, 3),
            },
            publish_after_s=self.settings.heartbeat_timeout_s / 3,
        )
        lapsed = self.hearing.heard()
        if beat.status in ("ok", "returned"):
            self.keeper.renewed(sent)
            self._guard.renewed(self.keeper.lease)
        if beat.status == "superseded":
            logger.critical("node-superseded node=%s: another incarnation has joined; this one stops", self.name)
            self._stopping.set()
            self._after_silence.let_go()
            self.app.control.shutdown(destination=[self.name])
            os.kill(os.getpid(), signal.SIGTERM)
        elif beat.status == "unknown":
            logger.warning("node-unknown node=%s: Redis has forgotten it; it joins again", self.name)
            self._register()
        elif beat.status == "returned":
            logger.warning("node-returned node=%s: it was judged silent; superseded jobs are stopped", self.name)
        if beat.status == "returned" or lapsed:
            self._after_silence.stop_superseded()
        self._after_silence.resume_paused()
