r"""The ledger: the truth about every task, in Redis. The broker's lists are doorbells.

    submitted --place--> placed --claim--> running --finish--> succeeded | failed | cancelled | timed_out
        \                  ^  \               \                 | expired | lost
         \--park--> waiting    \--node lost----\--> waiting again, attempt + 1

Fields of an entry (hash `task:<id>`):

state, node, attempt (fencing token, one for each placement), devices (GPU indices), name, type, shape, request (JSON),
cpu, memory, gpu, storage (1/1000 core, KiB, 1/1000 device, KiB), arrival, deadline, submitted, placed, claimed, since,
finished, expires (epoch seconds of the server), priority, retries, nonce, losses, revoked, hold, features, tau,
predicted, parameters, family, user, reason, sla_success, runtime, paused (seconds),
adopts (attempt:attempt that it attaches to).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from redis import Redis

from cloudai.names import Keys
from cloudai.scheduling.learning import LearningRule
from cloudai.scheduling.task_types import INITIAL_TAU
from cloudai.state.attempts import Claim, Finish, Finishes, Report, read_claim, read_finish
from cloudai.state.decision_times import DecisionTimes
from cloudai.state.scripts import Scripts
from cloudai.state.submissions import Placement, Submission, read_placement
from cloudai.state.waiting import Proposal, WaitingSet, proposal_args, read_look

#: Changed rows of the fleet, and waiting shapes, that one look reads.
LOOK_ROWS = 1000
LOOK_SHAPES = 32

#: Compact JSON, made once.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Ledger:
    """Typed access to the scripts of the ledger."""

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        scripts: Scripts,
        *,
        max_live: int,
        finished_ttl_s: int,
        decision_ttl_s: int,
        rule: LearningRule | None = None,
        max_families: int = 10_000,
    ) -> None:
        self.client = client
        self.keys = keys
        self.scripts = scripts
        #: How long this process's decisions took, until a placement takes it along.
        self.times = DecisionTimes()
        self._max_live = max_live
        self._finished_ttl_s = finished_ttl_s
        self._decision_ttl_s = decision_ttl_s
        self._rule = _rule_text(rule or LearningRule(), max_families)

    def place_args(
        self, submission: Submission, candidates: Sequence[tuple[str, str]], since: int
    ) -> tuple[str, str, str, str]:
        """Arguments of the place script for one task; it takes those of several, one after the other."""
        s = submission
        short = [
            s.task_id, s.nonce, s.cpu_milli, s.memory_kib, s.gpu_milli, s.storage_kib, s.shape, s.task_type, s.sla_s,
            "" if s.deadline is None else s.deadline, s.eta, s.expires, s.priority, s.name, s.retries,
            self._decision_ttl_s, since, self._max_live, s.fallback, s.from_attempt,
            list(chain.from_iterable(s.extra)), list(chain.from_iterable(candidates)), self.times.take(),
        ]  # fmt: skip
        return _encode(short), s.request, s.message, s.decision

    def place(
        self,
        submission: Submission,
        candidates: Sequence[tuple[str, str]],
        since: int,
        client: Redis | None = None,
        *,
        although_full: bool = False,
    ) -> Placement:
        """Reserve the first candidate that still fits and ring its node, or let the task wait.

        Idempotent on the nonce. A task that is running keeps the message, and what it asks for, as its next one;
        deadline and arrival stay. An id that has ended and is settled may be used again; its attempts are counted on.

        Nothing is written for the statuses duplicate; busy (the id waits, is placed, or is not settled yet);
        revoked; stale (`from_attempt` is not the attempt that runs); full. `since` is
        the caller's fleet version. `although_full`: also when the server's memory is full (else OutOfMemoryError).
        """
        script = self.scripts.place_next if although_full else self.scripts.place
        reply = script.run(
            client or self.client, self.keys.prefix, *self.place_args(submission, candidates, since)
        )
        return read_placement(reply[0])

    def waiting(self, since: int, *, rows: int = LOOK_ROWS, shapes: int = LOOK_SHAPES, each: int = 16) -> WaitingSet:
        """The most urgent waiting tasks: up to `each` with a deadline ahead and `each` oldest of up to `shapes` shapes.

        Of a shape with more whose deadline is ahead, some from further behind too: in a long queue the first may all be
        so close to their deadlines that none of them can make it.
        Where more shapes wait, half are the most urgent, and the rest are some with a deadline ahead and some by
        chance: every shape has its turn.
        """
        return read_look(self.scripts.waiting.run(self.client, self.keys.prefix, since, rows, shapes, each))

    def place_waiting(
        self, proposals: Iterable[Proposal], since: int, rows: int = LOOK_ROWS
    ) -> tuple[float, list[str], str]:
        """Place waiting tasks, each on its first candidate that still fits.

        Returns the server time, for each proposal the node, "" (nothing fitted) or "gone" (it waits no longer), and
        the fleet's changes.
        """
        listed = list(proposals)
        short = [since, rows, self._decision_ttl_s, [proposal_args(p) for p in listed], self.times.take()]
        now, results, changes = self.scripts.place_waiting.run(
            self.client, self.keys.prefix, _encode(short), *(p.decision for p in listed)
        )
        return float(now), [node.decode() for node in results], changes.decode()

    def hold(self, task_id: str, node: str) -> bool:
        """Keep a node for a waiting task: nothing else is placed there until the task is placed, ends, or gets another.

        False: the task does not wait for capacity, or the node is not up or is kept for another task.
        """
        return bool(self.scripts.hold.run(self.client, self.keys.prefix, task_id, node))

    def claim(self, task_id: str, node: str, incarnation: str) -> Claim | None:
        """Take a placed task. None: it is not placed on this incarnation of the node (cancelled, moved, taken already).

        Also None while the node's heartbeat is older than its timeout: it must be heard first; Fleet.ring rings again.
        """
        return next(iter(self.claim_several(task_id, node, incarnation, more=0)), None)

    def claim_several(self, task_id: str, node: str, incarnation: str, *, more: int) -> list[Claim]:
        """Take a placed task, and up to `more` whose doorbells are next in the node's list. Empty: as for `claim`."""
        reply = self.scripts.claim.run(self.client, self.keys.prefix, task_id, node, incarnation, more)
        return [
            read_claim(text.decode(), message or b"") for message, text in zip(reply[::2], reply[1::2], strict=True)
        ]

    def finish(
        self,
        task_id: str,
        attempt: int,
        outcome: str,
        *,
        runtime_s: float | None,
        reason: str = "",
        started: float = 0.0,
        usage: Mapping[str, str | float | int] | None = None,
    ) -> Finish:
        """End an attempt: release its reservation, learn tau (spec section 2), set sla_success (section 3), append
        its event.

        `outcome` is a final state, or `retried` (a next message must exist) or `requeued`. Any attempt but the one
        that runs changes nothing and is answered `stale`. `runtime_s` in seconds, None: nothing to learn from; one that
        is not finite and positive is refused and counted (tau_samples_refused), an outlier is counted only
        (tau_outliers). The rule is that of scheduling/learning.py; its sample is the runtime over the speed of the
        pair where the parameters in force have one.

        The task ends, except: `requeued` waits again; where a next message exists, that one waits (`next`). A task that
        was cancelled meanwhile does neither; it, or a retry that was never published, ends `unsettled`. The event
        `finished` tells by `final` (1 or 0) whether the task ended with its attempt.
        """
        report = Report(task_id, attempt, outcome, runtime_s, reason, started, usage or {})
        return self.finish_several([report]).finishes[0]

    def finish_several(
        self,
        reports: Sequence[Report],
        *,
        look_since: int | None = None,
        each: int = 16,
        successors: Sequence[Proposal] = (),
        parked: int = 0,
    ) -> Finishes:
        """As `finish`, for several attempts in one round trip.

        `successors` are waiting tasks to place on what these attempts release, as `place_waiting` would; nothing is
        done about them when tasks have been parked since the look that they were chosen from (its `parked`), for
        those may be more urgent. With `look_since` (the caller's fleet version), and while tasks wait, also what
        `waiting` would return after all that.
        """
        short = [
            (
                r.task_id, str(r.attempt), r.outcome, "" if r.runtime_s is None else repr(r.runtime_s), r.reason[:500],
                r.started, [part for pair in r.usage.items() for part in pair],
            )
            for r in reports
        ]  # fmt: skip
        look = "" if look_since is None else _encode([look_since, LOOK_ROWS, LOOK_SHAPES, each])
        follow = ""
        if successors:
            follow = _encode(
                [parked, self._decision_ttl_s, [proposal_args(p) for p in successors], self.times.take()]
            )
        replies, results, seen = self.scripts.finish.run(
            self.client, self.keys.prefix, _encode(short), self._rule, self._finished_ttl_s, look, follow,
            *(p.decision for p in successors),
        )  # fmt: skip
        return Finishes(
            [read_finish(text.decode()) for text in replies],
            [node.decode() for node in results],
            read_look(seen) if seen else None,
        )

    def resume(self, task_id: str, attempt: int, node: str, paused_s: float) -> bool:
        """Whether a job that a node has paused, for so many seconds, is still that node's: then it may go on.

        Appends the events `paused` and `resumed`: a node that was cut off could not tell earlier. False changes
        nothing.
        """
        return bool(self.scripts.resume.run(self.client, self.keys.prefix, task_id, attempt, node, paused_s))

    def unclaim(self, task_id: str, attempt: int) -> bool:
        """Give a claim back; the task waits again, or ends unsettled if it was cancelled meanwhile.

        False: this attempt does not run (any more).
        """
        return bool(
            self.scripts.unclaim.run(self.client, self.keys.prefix, task_id, attempt, self._finished_ttl_s)
        )

    def cancel(self, task_id: str, reason: str = "cancelled") -> tuple[str, str]:
        """Cancel a task; returns its state (or `unknown`) and its node.

        A waiting or placed task is `cancelled` at once and becomes unsettled. A running one is only marked: it is not
        placed again whatever happens, and whoever runs it must be told to stop. Ended tasks do not change.
        """
        state, node = self.scripts.cancel.run(self.client, self.keys.prefix, task_id, self._finished_ttl_s, reason)
        return state.decode(), node.decode()

    def settled(self, task_id: str) -> bool:
        """The result of a task that ended without a worker is stored; forget its message. False: done already."""
        return bool(self.scripts.settled.run(self.client, self.keys.prefix, task_id, self._finished_ttl_s))

    # Reading: single commands, no script needed.

    def entry(self, task_id: str) -> dict[str, str]:
        """All fields of the ledger entry; empty when the task is unknown (never submitted, or ended long ago)."""
        found: Any = self.client.hgetall(self.keys.task(task_id))
        return {k.decode(): v.decode() for k, v in found.items()}

    def is_current(self, task_id: str, attempt: int) -> bool:
        """Whether this attempt is the one that the ledger lets run: the fence around side effects and results."""
        state, current = self.client.hmget(self.keys.task(task_id), "state", "attempt")
        return state == b"running" and current is not None and int(current) == attempt

    def message(self, task_id: str) -> bytes | None:
        """The Celery message of an unfinished or unsettled task."""
        value: Any = self.client.get(self.keys.message(task_id))
        return value if value is None else bytes(value)

    def decision(self, task_id: str) -> str | None:
        """The decision record of a task, while it is kept."""
        value: Any = self.client.get(self.keys.decision(task_id))
        return value if value is None else bytes(value).decode()

    def waiting_ids(self, limit: int) -> list[tuple[str, float]]:
        """Ids of waiting tasks with their urgency (deadline), most urgent first, ETA tasks last."""
        found: Any = self.client.zrange(self.keys.waiting, 0, limit - 1, withscores=True)
        found += self.client.zrange(self.keys.delayed, 0, limit - 1, withscores=True)
        return [(task_id.decode(), float(score)) for task_id, score in found[:limit]]

    def node_totals(self) -> dict[str, dict[str, int]]:
        """Counters of the nodes that are known: counter -> node -> total; node "" for what no node had."""
        stored: Any = self.client.hgetall(self.keys.node_counters)
        totals: dict[str, dict[str, int]] = {}
        for field, value in stored.items():
            counter, _, node = field.decode().partition(":")
            totals.setdefault(counter, {})[node] = int(value)
        return totals

    def totals(self) -> dict[str, int]:
        """Counters since the deployment began, and what is in flight, waiting and delayed now."""
        with self.client.pipeline(transaction=False) as pipe:
            pipe.hgetall(self.keys.counters)
            pipe.get(self.keys.live)
            pipe.zcard(self.keys.waiting)
            pipe.zcard(self.keys.delayed)
            pipe.llen(self.keys.dead_letters)
            counters, live, waiting, delayed, dead = pipe.execute()
        totals = {k.decode(): int(v) for k, v in counters.items()}
        totals.update(live=int(live or 0), waiting=int(waiting), delayed=int(delayed), dead_letters=int(dead))
        return totals


def _rule_text(rule: LearningRule, max_families: int) -> str:
    """The rule of learning as the finish script reads it; of each type lambda and the starting value."""
    types = {str(kind): [rule.rate_of(kind), seconds] for kind, seconds in INITIAL_TAU.items()}
    return _encode(
        {
            "sigma": rule.outlier_sigma, "after": rule.outlier_after, "follow": rule.follow_after,
            "adaptive": rule.adaptive, "families": max_families, "types": types,
        }
    )  # fmt: skip
