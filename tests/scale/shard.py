"""A process in which many simulated nodes live; asked by the run (fleet.py): `python -m tests.scale.shard PLAN URL`."""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from cloudai import CloudAI
from cloudai.bench.conversation import serve
from cloudai_workers.lease import now_s

from .node import Node, Run
from .plan import Plan, draw_fleet, settings_of

logger = logging.getLogger(__name__)

#: Between two ticks of a node's heart, seconds, as the worker's.
_TICK_S = 0.5


class Timers:
    """Calls back at moments of the boot clock, in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        #: How late the latest call was made at worst since `late` was read last, seconds.
        self.late_s = 0.0
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Call at that moment, or soon after."""
        with self._changed:
            heapq.heappush(self._heap, (moment, next(self._order), call))
            self._changed.notify()

    def every(self, seconds: float, first: float, call: Callable[[], None]) -> None:
        """Call again and again; a beat that comes late is not made up for."""

        def again() -> None:
            begun = now_s()
            try:
                call()
            finally:
                self.at(max(begun + seconds, now_s()), again)

        self.at(first, again)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap or self._heap[0][0] > now_s():
                    self._changed.wait(self._heap[0][0] - now_s() if self._heap else None)
                moment, _, call = heapq.heappop(self._heap)
            self.late_s = max(self.late_s, now_s() - moment)
            try:
                call()
            except redis.RedisError as error:
                logger.warning("redis: %s", error)
            except Exception:
                logger.exception("a timer's call failed")


class Shard:
    """The nodes of this process, by their places in the fleet."""

    def __init__(self, plan: Plan, url: str) -> None:
        self._plan = plan
        self._drawn = draw_fleet(plan)
        self._app = CloudAI("scale", settings=settings_of(plan, url), broker=url, set_as_current=False)
        self._app.conf.task_ignore_result = True
        self._jobs, self._hearts, self._upkeep = Timers("jobs"), Timers("hearts"), Timers("upkeep")
        self._nodes: dict[int, Node] = {}
        self._runs: list[Run] = []
        #: Reports of an end that the ledger took as the task's last, by task.
        self._completed: list[str] = []
        #: Seconds of each sweep that was made.
        self._sweeps: list[float] = []
        self._instrument()

    def _instrument(self) -> None:
        deployment: Any = self._app.deployment
        sweep, end = deployment.sweep.run, deployment.dispatcher.end

        def timed_sweep() -> Any:
            begun = time.perf_counter()
            swept = sweep()
            if swept.done:
                self._sweeps.append(time.perf_counter() - begun)
            return swept

        def counted_end(reports: Any, *args: Any) -> Any:
            finishes, found = end(reports, *args)
            told = zip(reports, finishes, strict=True)
            self._completed.extend(report.task_id for report, finish in told if finish.status == "finished")
            return finishes, found

        deployment.sweep.run, deployment.dispatcher.end = timed_sweep, counted_end

    # --- what the run asks

    def join(self, places: Sequence[int]) -> int:
        """Let nodes join, new ones or new incarnations; returns how many have."""
        for i, place in enumerate(places):
            node = Node(self._app, self._plan, self._drawn[place], self._jobs.at, self._runs)
            node.join()
            fresh = place not in self._nodes
            self._nodes[place] = node
            if fresh:
                spread = i / len(places)
                first = now_s() + spread * self._plan.heartbeat_interval_s
                self._hearts.every(self._plan.heartbeat_interval_s, first, lambda p=place: self._nodes[p].beat())
                self._upkeep.every(_TICK_S, now_s() + spread * _TICK_S, lambda p=place: self._nodes[p].upkeep())
        return len(places)

    def lose_power(self, places: Sequence[int]) -> None:
        """These fall silent for good."""
        for place in places:
            self._nodes[place].lose_power()

    def cut_off(self, places: Sequence[int]) -> None:
        """These cannot reach Redis."""
        for place in places:
            self._nodes[place].cut_off()

    def reconnect(self, places: Sequence[int]) -> None:
        """They can again."""
        for place in places:
            self._nodes[place].reconnect()

    def sign_off(self, places: Sequence[int]) -> list[int]:
        """Those of them that had nothing left to do, and leave."""
        return [place for place in places if self._nodes[place].sign_off()]

    def state(self) -> dict[str, float]:
        """Jobs that run, and how late heartbeats have been at worst since the last call, seconds."""
        late, self._hearts.late_s = self._hearts.late_s, 0.0
        return {"running": sum(node.running() for node in self._nodes.values()), "late_s": late}

    def tell(self, path: str) -> dict[str, list[float]]:
        """Write what the nodes saw into a file; seconds of sweeps."""
        runs = [[r.task_id, r.attempt, r.node, r.stretches, r.ended] for r in self._runs]
        Path(path).write_text(json.dumps({"runs": runs, "completed": self._completed}), encoding="utf-8")
        return {"sweeps": self._sweeps}


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    # Three connections a node.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    shard = Shard(Plan(**json.loads(sys.argv[1])), sys.argv[2])
    serve(
        {
            "join": shard.join, "lose_power": shard.lose_power, "cut_off": shard.cut_off,
            "reconnect": shard.reconnect, "sign_off": shard.sign_off, "state": shard.state, "tell": shard.tell,
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
