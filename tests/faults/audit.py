"""Looks at the reservations all along: what each node has given away against what the ledger holds on it.

One look is one script in Redis, so that it sees one moment. Two things must never show: a reservation that no
unfinished task explains (or the other way about: a leak), and more given away than there is (over-commitment).
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from typing import Any

import redis

from cloudai.deployment import Deployment

LOOK_EVERY_S = 0.2

_SNAPSHOT = """#!lua flags=no-writes,allow-oom
local P = KEYS[1]
local t = redis.call('TIME')
local out = {}
for _, name in ipairs(redis.call('ZRANGE', P .. 'fleet', 0, -1)) do
  local key = P .. 'node:' .. name
  local node = redis.call('HMGET', key, 'state', 'heartbeat', 'cpu_capacity', 'memory_capacity', 'storage_capacity',
                          'slots_capacity', 'gpu_capacity', 'cpu', 'memory', 'storage', 'slots', 'gpu')
  local tasks = {}
  for _, id in ipairs(redis.call('SMEMBERS', key .. ':tasks')) do
    local row = redis.call('HMGET', P .. 'task:' .. id, 'state', 'node', 'cpu', 'memory', 'storage', 'gpu')
    row[#row + 1] = id
    tasks[#tasks + 1] = row
  end
  out[#out + 1] = {name, node, tasks}
end
return cjson.encode({tonumber(t[1]) + tonumber(t[2]) / 1e6, out})
"""

_DIMENSIONS = ("cpu", "memory", "storage", "slots", "gpu")


class Audit:
    """Samples in a thread of its own from `start` to `stop`."""

    def __init__(self, deployment: Deployment, every_s: float = LOOK_EVERY_S) -> None:
        self._every_s = every_s
        self._url = deployment.settings.redis.url
        self._prefix = deployment.keys.prefix
        self.looks = 0
        #: What was wrong, with the time of Redis at which it was seen first.
        self.leaks: dict[str, float] = {}
        #: Largest share of a capacity that was given away beyond it; 0 when it never was.
        self.max_overcommit = 0.0
        #: Most tasks that a node held at once.
        self.most_tasks = 0
        #: Heartbeats of each node as they were seen, epoch seconds by Redis, in order.
        self.heartbeats: dict[str, list[float]] = defaultdict(list)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults-audit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        with redis.Redis.from_url(self._url, socket_timeout=5) as client:
            while not self._stop.wait(self._every_s):
                try:
                    self.look(client)
                except redis.RedisError:
                    time.sleep(0.1)  # Redis is away: that is part of the campaign

    def look(self, client: redis.Redis) -> None:
        """One look."""
        now, nodes = json.loads(client.eval(_SNAPSHOT, 1, self._prefix))  # type: ignore[arg-type]
        self.looks += 1
        for name, fields, tasks in nodes:
            self._check(name, fields, tasks or [], now)

    def _check(self, name: str, fields: list[Any], tasks: list[list[Any]], now: float) -> None:
        state, heartbeat, *amounts = fields
        if not state:
            return
        beats = self.heartbeats[name]
        if not beats or beats[-1] != float(heartbeat):
            beats.append(float(heartbeat))
        capacity, free = [int(a) for a in amounts[:5]], [int(a) for a in amounts[5:9]]
        # GPUs in thousandths of all devices together.
        shares = [int(share) for share in amounts[9].split(",") if share]
        capacity[4] *= 1000
        free.append(sum(shares))
        held = [0, 0, 0, len(tasks), 0]
        for task_state, node, cpu, memory, storage, gpu, task_id in tasks:
            if task_state not in ("placed", "running") or node != name:
                self._leak(f"{name} holds {task_id}, which is {task_state or 'unknown'} on {node or 'no node'}", now)
                continue
            for i, amount in ((0, cpu), (1, memory), (2, storage), (4, gpu)):
                held[i] += int(amount)
        self.most_tasks = max(self.most_tasks, len(tasks))
        for dimension, whole, left, taken in zip(_DIMENSIONS, capacity, free, held, strict=True):
            if whole - left != taken:
                self._leak(f"{name}: {dimension}: {whole - left} given away, {taken} held by tasks", now)
            if taken > whole or left < 0:
                self.max_overcommit = max(self.max_overcommit, max(taken - whole, -left) / max(whole, 1))
        if shares and min(shares) < 0:
            self.max_overcommit = max(self.max_overcommit, -min(shares) / 1000)

    def _leak(self, what: str, now: float) -> None:
        self.leaks.setdefault(what, now)
