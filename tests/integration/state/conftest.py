"""A small laboratory around cloudai.state, on a real Valkey, with a hand on its clock."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import hypothesis
import pytest

from cloudai.deployment import Deployment
from cloudai.names import node_queue
from cloudai.settings import Settings
from cloudai.state.attempts import Claim, Finish
from cloudai.state.fleet import NodeCapacity, Registration
from cloudai.state.submissions import Placement, Submission
from cloudai.state.sweep import Swept
from cloudai.state.waiting import Proposal

#: What the laboratory calls a second, in real ones: however slow the machine, a test takes no time in there.
SECOND = 60.0
#: The settings that the laboratory runs with, real seconds.
TIMEOUT_S, LEASE_S, MARGIN_S = 10 * SECOND, 120 * SECOND, 10 * SECOND
MAX_ATTEMPTS = 3

#: More and longer random interleavings (test_invariants.py), drawn anew each time.
hypothesis.settings.register_profile("thorough", derandomize=False, max_examples=1000, stateful_step_count=80)

#: Set-up only: makes every stored time older, which is what waiting would do. The scripts read the server's
#: clock, and nobody can turn that; all that they compare it with is here.
_AGE = """
local P, s = KEYS[1], tonumber(ARGV[1])
local function hash(key, fields)
  for _, field in ipairs(fields) do
    local value = tonumber(redis.call('HGET', key, field) or '')
    if value and value > 0 then redis.call('HSET', key, field, string.format('%.6f', value - s)) end
  end
end
local function sorted(key)
  local list = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #list, 2 do redis.call('ZADD', key, tonumber(list[i + 1]) - s, list[i]) end
end
local sets = {'heartbeats', 'gone', 'delayed', 'expiring', 'unsettled', 'waiting', 'waiting:shapes'}
for _, name in ipairs(sets) do sorted(P .. name) end
hash(P .. 'sweep', {'at', 'judge_after'})
for _, key in ipairs(redis.call('KEYS', '*')) do
  if key:sub(1, #P) == P then
    local name = key:sub(#P + 1)
    if name:sub(1, 5) == 'task:' then
      hash(key, {'arrival', 'deadline', 'submitted', 'placed', 'claimed', 'since', 'finished', 'expires'})
    elseif name:sub(1, 5) == 'next:' then hash(key, {'eta', 'expires'})
    elseif name:sub(1, 14) == 'waiting:shape:' then sorted(key)
    elseif name:sub(1, 5) == 'node:' and name:sub(-6) ~= ':tasks' then
      hash(key, {'heartbeat', 'registered', 'published'})
    end
  end
end
"""


@dataclass(frozen=True)
class Event:
    """One entry of the stream."""

    kind: str
    task_id: str
    fields: Mapping[str, str]


class Lab:
    """One deployment, and short ways to say what the tests say often."""

    def __init__(self, settings: Settings) -> None:
        self.deployment = Deployment(settings)
        self.client = self.deployment.client
        self.keys = self.deployment.keys
        self.ledger = self.deployment.ledger
        self.fleet = self.deployment.fleet
        self.tau = self.deployment.tau
        self.parameters = self.deployment.parameters
        self.sweep = self.deployment.sweep
        self._nonces = itertools.count(1)
        self._read = "0"

    # --- what producers do

    def submission(
        self,
        task_id: str,
        *,
        nonce: str | None = None,
        cpu: int = 1000,
        memory: int = 1024,
        gpu: int = 0,
        storage: int = 0,
        deadline: float | None = None,
        sla_s: float = 10 * SECOND,
        eta: float = 0.0,
        expires: float = 0.0,
        priority: int = 0,
        retries: int = 0,
        task_type: str = "cpu-light",
        from_attempt: int = 0,
        decision: str = "",
        shape: str | None = None,
        constraints: Mapping[str, str] = MappingProxyType({}),
        fallback: str = "",
        extra: tuple[tuple[str, str | int | float], ...] = (("tau", 5.0),),
    ) -> Submission:
        """A submission with its own nonce; 1/1000 core, KiB and 1/1000 device."""
        nonce = nonce or f"n{next(self._nonces)}"
        shape = shape or f"{cpu}/{memory}/{gpu}/{storage}"
        return Submission(
            task_id=task_id, nonce=nonce, cpu_milli=cpu, memory_kib=memory, gpu_milli=gpu,
            storage_kib=storage, shape=shape, task_type=task_type, sla_s=sla_s, deadline=deadline,
            eta=eta, expires=expires, priority=priority, name="jobs.work", retries=retries,
            request=json.dumps(
                {"shape": shape, **({"constraints": dict(constraints)} if constraints else {})}, separators=(",", ":")
            ),
            message=f'{{"id":"{task_id}","nonce":"{nonce}"}}', decision=decision, fallback=fallback,
            from_attempt=from_attempt, extra=extra,
        )  # fmt: skip

    def place(self, task_id: str, *nodes: str, **fields: object) -> Placement:
        """Submit with these candidates, best first."""
        submission = self.submission(task_id, **fields)
        return self.ledger.place(submission, [(node, f"features of {node}") for node in nodes], 0)

    def place_waiting(self, task_id: str, *nodes: str) -> str:
        """Propose these nodes for a waiting task; the node, "" or "gone"."""
        return self.ledger.place_waiting([self.proposal(task_id, *nodes)], 0)[1][0]

    def proposal(self, task_id: str, *nodes: str) -> Proposal:
        """These nodes for a waiting task, best first."""
        candidates = tuple((node, f"features of {node}") for node in nodes)
        return Proposal(task_id, '{"late":1}', "", 2.5, 7, candidates)

    # --- what nodes do

    def join(
        self,
        name: str,
        incarnation: str = "1",
        *,
        cpu: int = 4000,
        memory: int = 8192,
        gpus: int = 0,
        storage: int = 1000,
        slots: int = 8,
        max_attempts: int = MAX_ATTEMPTS,
        jobs: Collection[tuple[str, int]] = (),
        home: str = "here",
    ) -> Registration:
        """Register a node."""
        return self.fleet.register(
            name, incarnation, NodeCapacity(cpu, memory, gpus, storage, slots), labels={"zone": "z"},
            timeout_s=TIMEOUT_S, lease_s=LEASE_S, pressure=0.0, max_attempts=max_attempts,
            finished_ttl_s=3600, shown={"host": "h"}, jobs=jobs, home=home, margin_s=MARGIN_S,
        )  # fmt: skip

    def beat(self, name: str, incarnation: str = "1") -> str:
        """One heartbeat; its status."""
        return self.fleet.heartbeat(name, incarnation, pressure=0.1, usage={}, publish_after_s=SECOND).status

    def doorbell(self, node: str) -> str | None:
        """Take the next doorbell from the node's list, as its worker does."""
        item = self.client.rpop(node_queue(node))
        return None if item is None else bytes(item).decode()

    def doorbells(self, node: str) -> list[str]:
        """Ids in the node's list, next one first."""
        items: Sequence[bytes] = self.client.lrange(node_queue(node), 0, -1)
        return [item.decode() for item in reversed(items)]

    def take(self, node: str, incarnation: str = "1") -> Claim:
        """Answer the next doorbell; it must be there and lead to a claim."""
        task_id = self.doorbell(node)
        assert task_id is not None
        claim = self.ledger.claim(task_id, node, incarnation)
        assert claim is not None
        return claim

    def run(self, task_id: str, *nodes: str, **fields: object) -> Claim:
        """Submit a task and claim it."""
        placement = self.place(task_id, *nodes, **fields)
        assert placement.status == "placed"
        return self.take(placement.node)

    def finish(self, claim: Claim, outcome: str = "succeeded", runtime_s: float | None = 1.0) -> Finish:
        """Report the end of an attempt."""
        return self.ledger.finish(claim.task_id, claim.attempt, outcome, runtime_s=runtime_s)

    # --- time

    def now(self) -> float:
        """The server's time, epoch seconds."""
        seconds, micros = self.client.time()
        return float(seconds) + micros / 1e6

    def let_pass(self, seconds: float) -> None:
        """Make the state as old as if so many laboratory seconds had passed and nobody had done anything."""
        self.client.eval(_AGE, 1, self.keys.prefix, str(seconds * SECOND))

    def at(self, seconds: float) -> float:
        """The server's time so many laboratory seconds from now."""
        return self.now() + seconds * SECOND

    def sweep_through(self, seconds: float, *alive: str) -> list[Swept]:
        """Let time pass in steps of 5 s with a sweep after each; the nodes in `alive` beat before it."""
        swept = []
        for _ in range(int(seconds / 5)):
            self.let_pass(5)
            for name in alive:
                self.beat(name)
            swept.append(self.sweep.run())
        return swept

    # --- looking

    def new_events(self) -> list[Event]:
        """What the stream has got since the last call."""
        found: list[tuple[bytes, dict[bytes, bytes]]] = self.client.xrange(self.keys.events, min=f"({self._read}")
        events = []
        for entry_id, raw in found:
            self._read = entry_id.decode()
            fields = {k.decode(): v.decode() for k, v in raw.items()}
            events.append(Event(fields.pop("event"), fields.pop("id"), fields))
        return events

    def kinds(self) -> list[str]:
        """Kinds of the new events."""
        return [event.kind for event in self.new_events()]

    def free(self, node: str) -> tuple[int, int, int, int, str]:
        """What is free on a node: cpu, memory, storage, slots, GPU shares."""
        entry = self.fleet.entry(node)
        return (
            int(entry["cpu"]),
            int(entry["memory"]),
            int(entry["storage"]),
            int(entry["slots"]),
            entry["gpu"],
        )

    def state(self, task_id: str) -> str:
        """State of a task."""
        return self.ledger.entry(task_id).get("state", "")

    def unsettled(self) -> set[str]:
        """Tasks that ended without a worker and wait for their result."""
        return {task_id.decode() for task_id in self.client.zrange(self.keys.unsettled, 0, -1)}

    def settle_all(self) -> None:
        """Settle what ended without a worker."""
        for task_id in self.unsettled():
            assert self.ledger.settled(task_id)


def lab_settings(
    redis_url: str,
    *,
    timeout_s: float = TIMEOUT_S,
    lease_s: float = LEASE_S,
    margin_s: float = MARGIN_S,
    max_attempts: int = MAX_ATTEMPTS,
) -> Settings:
    """Settings of a laboratory."""
    settings = Settings()
    node = {"heartbeat_timeout_s": timeout_s, "lease_s": lease_s, "lease_margin_s": margin_s}
    return settings.model_copy(
        update={
            "redis": settings.redis.model_copy(update={"url": redis_url}),
            "limits": settings.limits.model_copy(update={"max_attempts": max_attempts}),
            "node": settings.node.model_copy(update=node),
        }
    )


@pytest.fixture
def lab(redis_url: str) -> Iterator[Lab]:
    """The laboratory over an empty Valkey."""
    lab = Lab(lab_settings(redis_url))
    yield lab
    lab.client.close()
