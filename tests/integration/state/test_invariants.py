"""The five invariants of the ledger, under random interleavings of all scripts.

1. What is reserved on a node is the sum of what the ledger holds there, never above its capacity.
2. A task is in one state and on at most one node; attempts only grow, and older ones change nothing.
3. A finish counts once: reservation, tau, event.
4. Every change of state appends one event.
5. Nothing is left behind when all tasks have ended.

`pytest tests/integration/state --hypothesis-profile=thorough` looks much longer.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cloudai.names import node_queue
from cloudai.settings import Settings
from cloudai.state.attempts import Report
from cloudai.state.fleet import NodeCapacity

from .conftest import SECOND, Lab, lab_settings
from .ledger_model import FINAL, LEASE_S, MARGIN_S, MAX_ATTEMPTS, TIMEOUT_S, Message, Model, Need, Node, Task

NEEDS = [
    Need(1000, 100), Need(1000, 100, 500), Need(500, 400, 300, 10), Need(2000, 100, 1000),
    Need(100, 2000, 2000), Need(4000, 50, 0, 60), Need(1, 1),
]  # fmt: skip
CAPACITIES = {
    "a": [Node(4000, 2000, 2, 100, 3), Node(2000, 500, 1, 100, 3)],
    "b": [Node(2000, 1000, 0, 50, 4), Node(8000, 1000, 0, 50, 1)],
    "c": [Node(8000, 4000, 3, 100, 2), Node(8000, 4000, 1, 20, 6)],
}
IDS = [f"t{i}" for i in range(8)]

ids = st.sampled_from(IDS)
nodes = st.sampled_from([*CAPACITIES])
candidates = st.lists(nodes, unique=True, max_size=3)
outcomes = st.sampled_from(["succeeded", "failed", "timed_out", "cancelled", "expired", "retried", "requeued"])


def _text(reply: Any) -> Any:
    """A reply of Redis with str for bytes."""
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, dict):
        return {_text(k): _text(v) for k, v in reply.items()}
    return [_text(item) for item in reply] if isinstance(reply, (list, set)) else reply


class LedgerMachine(RuleBasedStateMachine):
    """Every script in any order; the model says what each must answer and leave behind."""

    #: Steps that all machines of a test have made.
    steps_made = 0

    def __init__(self, deployment: Settings) -> None:
        super().__init__()
        self.lab = Lab(deployment)
        self.lab.client.flushdb()
        self.model = Model()
        self._nonces = itertools.count(1)
        self._incarnations = itertools.count(1)
        self._attempts: dict[str, int] = {}
        self._steps = 0
        for name in CAPACITIES:
            self.register(name, 0)
        # Past the grace that every node has when a deployment begins.
        self.sweep_on(5, set(CAPACITIES))

    # --- producers

    @rule(needs=st.lists(st.sampled_from(NEEDS), min_size=2, max_size=5), names=st.permutations([*CAPACITIES]))
    def submit_and_start_several(self, needs: list[Need], names: list[str]) -> None:
        """The ordinary course of things, so that the other rules find something to disturb."""
        over = [i for i in IDS if i not in self.model.tasks or self.model.tasks[i].state in FINAL]
        for task_id, need in zip(over, needs, strict=False):
            self.settle(task_id)
            self._put(task_id, need, names, None, None, 0)
        for name in names[:2]:
            for _ in self.lab.doorbells(name):
                self.answer_doorbell(name)

    @rule(
        task_id=ids, need=st.sampled_from(NEEDS), names=candidates,
        eta=st.sampled_from([None, None, None, 700.0]), expires=st.sampled_from([None, None, None, 1700.0]),
    )  # fmt: skip
    def submit(self, task_id: str, need: Need, names: list[str], eta: float | None, expires: float | None) -> None:
        self._put(task_id, need, names, eta, expires, 0)

    @precondition(lambda self: self.model.in_state("running"))
    @rule(
        data=st.data(), need=st.sampled_from(NEEDS), eta=st.sampled_from([None, 700.0]),
        expires=st.sampled_from([None, None, 1700.0]),
    )  # fmt: skip
    def publish_retry(self, data: Any, need: Need, eta: float | None, expires: float | None) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.model.in_state("running"))))
        self._put(task_id, need, [], eta, expires, self.model.tasks[task_id].attempt)

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data(), need=st.sampled_from(NEEDS), names=candidates)
    def publish_from_a_superseded_attempt(self, data: Any, need: Need, names: list[str]) -> None:
        task_id, task = data.draw(st.sampled_from(sorted(self.model.tasks.items(), key=lambda item: item[0])))
        if task.attempt > 1:
            self._put(task_id, need, names, None, None, data.draw(st.integers(1, task.attempt - 1)))

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data(), names=candidates)
    def deliver_again(self, data: Any, names: list[str]) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.model.tasks)))
        task = self.model.tasks[task_id]
        self._send(task_id, task.next or task.message, names, 0)

    def _put(
        self,
        task_id: str,
        need: Need,
        names: list[str],
        eta: float | None,
        expires: float | None,
        from_attempt: int,
    ) -> None:
        clock = self.model.clock
        message = Message(
            nonce=f"n{next(self._nonces)}",
            need=need,
            eta=None if eta is None else clock + eta,
            expires=None if expires is None else clock + expires,
        )
        self._send(task_id, message, names, from_attempt)

    def _send(self, task_id: str, message: Message, names: list[str], from_attempt: int) -> None:
        clock, now, need = self.model.clock, self.lab.now(), message.need
        submission = self.lab.submission(
            task_id, nonce=message.nonce, cpu=need.cpu, memory=need.memory, gpu=need.gpu,
            storage=need.storage, eta=0.0 if message.eta is None else now + message.eta - clock,
            expires=0.0 if message.expires is None else now + message.expires - clock,
            from_attempt=from_attempt, decision="{}",
        )  # fmt: skip
        expected = self.model.place(task_id, message, names, from_attempt)
        placement = self.lab.ledger.place(submission, [(name, "") for name in names], 0)
        assert (placement.status, placement.node) == expected
        if placement.status == "placed":
            assert placement.attempt == self.model.tasks[task_id].attempt

    @precondition(lambda self: self.model.in_state("running"))
    @rule(
        data=st.data(),
        retry=st.booleans(),
        end=st.sampled_from(["", "unclaim", "requeued", "retried", "succeeded", "cancelled"]),
    )
    def cancel_running(self, data: Any, retry: bool, end: str) -> None:
        """Cancelled while it runs, with or without a retry published before; then its end, if any."""
        task_id = data.draw(st.sampled_from(sorted(self.model.in_state("running"))))
        task = self.model.tasks[task_id]
        if retry:
            self._put(task_id, task.need, [], None, None, task.attempt)
        self.cancel(task_id)
        if end == "unclaim":
            self.unclaim(task_id, 0)
        elif end:
            self._finish(task_id, task.attempt, end, 1.0)

    @rule(task_id=ids)
    def cancel(self, task_id: str) -> None:
        assert self.lab.ledger.cancel(task_id)[0] == self.model.cancel(task_id)

    # --- dispatch

    @precondition(lambda self: self.model.in_state("waiting"))
    @rule(data=st.data(), names=candidates)
    def place_waiting(self, data: Any, names: list[str]) -> None:
        self.try_to_place(data.draw(st.sampled_from(sorted(self.model.in_state("waiting")))), names)

    @rule(task_id=ids, names=candidates)
    def try_to_place(self, task_id: str, names: list[str]) -> None:
        expected = self.model.place_waiting(task_id, names)
        assert self.lab.place_waiting(task_id, *names) == expected

    @precondition(lambda self: self.model.in_state("waiting"))
    @rule(data=st.data(), name=nodes)
    def hold_for_waiting(self, data: Any, name: str) -> None:
        self.hold(data.draw(st.sampled_from(sorted(self.model.in_state("waiting")))), name)

    @rule(task_id=ids, name=nodes)
    def hold(self, task_id: str, name: str) -> None:
        assert self.lab.ledger.hold(task_id, name) == self.model.hold(task_id, name)

    # --- nodes and their tasks

    @rule(name=nodes)
    def answer_doorbell(self, name: str) -> None:
        task_id = self.lab.doorbell(name)
        if task_id is not None:
            self._claim(task_id, name, self.model.nodes[name].incarnation)

    @rule(name=nodes)
    def lose_doorbell(self, name: str) -> None:
        """Its process was killed between taking the doorbell and claiming."""
        self.lab.doorbell(name)

    @rule(task_id=ids, name=nodes, stale=st.booleans())
    def claim_astray(self, task_id: str, name: str, stale: bool) -> None:
        incarnation = self.model.nodes[name].incarnation - stale
        if not self.model.may_claim(task_id, name, incarnation):
            self._claim(task_id, name, incarnation)

    def _claim(self, task_id: str, name: str, incarnation: int) -> None:
        claim = self.lab.ledger.claim(task_id, name, str(incarnation))
        assert (claim is not None) == self.model.may_claim(task_id, name, incarnation)
        if claim is not None:
            task = self.model.tasks[task_id]
            assert (claim.attempt, claim.devices) == (task.attempt, task.devices)
            assert claim.message.decode() == f'{{"id":"{task_id}","nonce":"{task.message.nonce}"}}'
            self.model.claim(task_id)

    @rule(name=nodes)
    def ring(self, name: str) -> None:
        placed = {i for i in self.model.in_state("placed") if self.model.tasks[i].node == name}
        missing = placed - set(self.lab.doorbells(name))
        assert set(self.lab.fleet.ring(name, -1.0)) == missing

    @precondition(lambda self: self.model.in_state("running"))
    @rule(data=st.data(), outcome=outcomes, runtime_s=st.floats(0.01, 1e4))
    def finish(self, data: Any, outcome: str, runtime_s: float) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.model.in_state("running"))))
        self._finish(task_id, self.model.tasks[task_id].attempt, outcome, runtime_s)

    @rule(task_id=ids, back=st.integers(0, 2), outcome=outcomes, runtime_s=st.none() | st.floats(0.01, 1e4))
    def report_of_any_attempt(self, task_id: str, back: int, outcome: str, runtime_s: float | None) -> None:
        task = self.model.tasks.get(task_id)
        self._finish(task_id, (task.attempt if task else 1) - back, outcome, runtime_s)

    def _finish(self, task_id: str, attempt: int, outcome: str, runtime_s: float | None) -> None:
        expected = self.model.finish(task_id, attempt, outcome, runtime_s)
        found = self.lab.ledger.finish(task_id, attempt, outcome, runtime_s=runtime_s)
        assert found.status == expected
        assert found.waiting == len(self.model.in_state("waiting"))

    @precondition(lambda self: self.model.in_state("running"))
    @rule(data=st.data(), outcome=outcomes, behind=st.booleans(), names=candidates)
    def finish_with_successors(self, data: Any, outcome: str, behind: bool, names: list[str]) -> None:
        """An end is reported together with those that are to follow; none does if others have come since the look."""
        task_id = data.draw(st.sampled_from(sorted(self.model.in_state("running"))))
        chosen = data.draw(st.lists(ids, max_size=2, unique=True))
        attempt = self.model.tasks[task_id].attempt
        parked = self.lab.ledger.waiting(0).parked
        waited = self.model.in_state("waiting")
        status = self.model.finish(task_id, attempt, outcome, 1.0)
        others_came = behind or self.model.in_state("waiting") != waited
        expected = [] if others_came else [self.model.place_waiting(successor, names) for successor in chosen]
        ended = self.lab.ledger.finish_several(
            [Report(task_id, attempt, outcome, 1.0, "", 0.0, {})],
            look_since=0,
            successors=[self.lab.proposal(successor, *names) for successor in chosen],
            parked=parked - behind,
        )
        assert ended.finishes[0].status == status
        assert ended.followed == (expected if chosen else [])
        seen = {task.task_id for shape in ended.waiting.shapes for task in shape.tasks} if ended.waiting else set()
        assert seen == self.model.in_state("waiting")

    @precondition(lambda self: self.model.in_state("running"))
    @rule(data=st.data())
    def give_back(self, data: Any) -> None:
        self.unclaim(data.draw(st.sampled_from(sorted(self.model.in_state("running")))), 0)

    @rule(task_id=ids, back=st.integers(0, 1))
    def unclaim(self, task_id: str, back: int) -> None:
        task = self.model.tasks.get(task_id)
        attempt = (task.attempt if task else 1) - back
        expected = self.model.unclaim(task_id, attempt)
        assert self.lab.ledger.unclaim(task_id, attempt) == expected

    @rule(task_id=ids)
    def settle(self, task_id: str) -> None:
        task = self.model.tasks.get(task_id)
        assert self.lab.ledger.settled(task_id) == (task is not None and not task.settled)
        if task is not None:
            task.settled = True

    # --- nodes

    @rule(name=nodes, size=st.integers(0, 1))
    def register(self, name: str, size: int) -> None:
        like = CAPACITIES[name][size]
        node = Node(like.cpu, like.memory, like.gpus, like.storage, like.slots, incarnation=next(self._incarnations))
        held = sorted(i for i in self.model.in_state("placed", "running") if self.model.tasks[i].node == name)
        accepted = self.model.register(name, node)
        answer = self.lab.fleet.register(
            name, str(node.incarnation),
            NodeCapacity(node.cpu, node.memory, node.gpus, node.storage, node.slots),
            labels={}, timeout_s=TIMEOUT_S, lease_s=LEASE_S, pressure=0.0, max_attempts=MAX_ATTEMPTS,
            finished_ttl_s=3600, shown={},
        )  # fmt: skip
        assert answer.accepted == accepted
        if accepted:
            self.model.adopt(name, held, list(answer.adopted))

    @rule(name=nodes, size=st.integers(0, 1))
    def restart_after_a_kill(self, name: str, size: int) -> None:
        for _ in range(3):
            self._let_pass(500)
        self.register(name, size)

    @rule(name=nodes, stale=st.sampled_from([0, 0, 0, 1]))
    def heartbeat(self, name: str, stale: int) -> None:
        incarnation = self.model.nodes[name].incarnation - stale
        assert self.lab.beat(name, str(incarnation)) == self.model.heartbeat(name, incarnation)

    @rule(name=nodes, undrain=st.booleans())
    def drain(self, name: str, undrain: bool) -> None:
        found = self.lab.fleet.undrain(name) if undrain else self.lab.fleet.drain(name)
        assert found == self.model.set_state(name, "up" if undrain else "draining")

    @rule(name=nodes, stale=st.booleans())
    def sign_off(self, name: str, stale: bool) -> None:
        incarnation = self.model.nodes[name].incarnation
        if stale:
            assert self.lab.fleet.sign_off(name, str(incarnation - 1)) == "superseded"
        else:
            assert self.lab.fleet.sign_off(name, str(incarnation)) == self.model.set_state(name, "down")

    # --- time

    @rule(steps=st.sampled_from([1, 3]))
    def wait(self, steps: int) -> None:
        for _ in range(steps):
            self._let_pass(500)

    @rule(seconds=st.sampled_from([1, 500]), alive=st.sets(nodes))
    def sweep(self, seconds: int, alive: set[str]) -> None:
        self._let_pass(seconds)
        for name in sorted(alive):
            self.heartbeat(name, 0)
        self.model.sweep()
        swept = self.lab.sweep.run()
        assert swept.done
        assert swept.waiting == len(self.model.in_state("waiting"))

    @rule(steps=st.integers(3, 8), alive=st.sets(nodes))
    def sweep_on(self, steps: int, alive: set[str]) -> None:
        for _ in range(steps):
            self.sweep(500, alive)

    def _let_pass(self, seconds: int) -> None:
        self.model.clock += seconds
        self.lab.let_pass(seconds / SECOND)

    # --- what must hold after every step; all of it is read in one round trip

    @invariant()
    def the_state_is_looked_at(self) -> None:
        """Every fifth time: what is wrong stays wrong, and looking takes longer than a step."""
        if self._steps:  # the first call comes before the first step
            LedgerMachine.steps_made += 1
        self._steps += 1
        if self._steps % 5 == 0:
            self.the_state_is_as_the_model_says()
            self.the_waiting_are_offered_for_dispatch()
            self.no_reservation_leaks()
            self.every_change_of_state_is_one_event()
            self.tau_has_learned_from_each_success_once()

    def the_state_is_as_the_model_says(self) -> None:
        model, keys, prefix = self.model, self.lab.keys, self.lab.keys.prefix
        with self.lab.client.pipeline(transaction=True) as pipe:
            for task_id in model.tasks:
                pipe.hgetall(keys.task(task_id))
                pipe.exists(keys.message(task_id))
                pipe.exists(keys.next(task_id))
                pipe.ttl(keys.task(task_id))
            for name in model.nodes:
                pipe.hgetall(keys.node(name))
                pipe.smembers(keys.node_tasks(name))
                pipe.lrange(node_queue(name), 0, -1)
            for key in self._indexes():
                pipe.zrange(key, 0, -1)
            pipe.keys(prefix + "waiting:shape:*")
            pipe.keys(prefix + "waiting:request:*")
            pipe.get(prefix + "live")
            found = iter(_text(pipe.execute()))
        for task_id, task in model.tasks.items():
            self._check_task(task_id, task, next(found), bool(next(found)), bool(next(found)), next(found))
        for name in model.nodes:
            self._check_node(name, next(found), set(next(found)), next(found))
        for key, expected in self._indexes().items():
            assert (key, set(next(found))) == (key, expected)
        shapes = {model.tasks[i].need.shape for i in model.in_state("waiting")}
        assert set(next(found)) == {keys.shape(shape) for shape in shapes}
        assert set(next(found)) == {f"{prefix}waiting:request:{shape}" for shape in shapes}
        assert int(next(found) or 0) == model.live()

    def _check_task(self, task_id: str, task: Task, entry: Any, message: bool, follows: bool, ttl: int) -> None:
        assert entry["state"] == ("waiting" if task.state == "delayed" else task.state)
        assert int(entry.get("attempt", "0")) == task.attempt
        assert task.attempt >= self._attempts.get(task_id, 0)
        self._attempts[task_id] = task.attempt
        if task.state not in FINAL:
            assert entry.get("node", "") == task.node
            assert entry.get("devices", "") == ",".join(map(str, task.devices))
            assert entry["nonce"] == task.message.nonce
        assert (entry.get("revoked") == "1") == task.revoked
        holders = [name for name, node in self.model.nodes.items() if node.held_for == task_id]
        assert [entry["hold"]] == holders if "hold" in entry else holders == []
        unfinished = task.state not in FINAL or not task.settled
        assert message == unfinished
        assert (ttl == -1) == unfinished
        assert follows == (task.next is not None)

    def _check_node(self, name: str, entry: Any, held: set[str], bells: list[str]) -> None:
        node, shares, free = self.model.nodes[name], self.model.gpu_free(name), self.model.free(name)
        assert min(free) >= 0
        assert all(0 <= share <= 1000 for share in shares)
        assert tuple(int(entry[k]) for k in ("cpu", "memory", "storage", "slots")) == free
        assert entry["gpu"] == ",".join(map(str, shares))
        on_it = {i for i in self.model.in_state("placed", "running") if self.model.tasks[i].node == name}
        assert held == on_it
        assert (entry["state"], entry["held_for"]) == (node.state, node.held_for)
        assert len(set(bells)) == len(bells)
        assert set(bells) <= {i for i in on_it if self.model.tasks[i].state == "placed"}

    def _indexes(self) -> dict[str, set[str]]:
        """The sorted sets and what each must hold."""
        model, keys = self.model, self.lab.keys
        waiting = model.in_state("waiting")
        by_shape = {keys.shape(need.shape): {i for i in waiting if model.tasks[i].need == need} for need in NEEDS}
        return {
            keys.waiting: waiting,
            keys.delayed: model.in_state("delayed"),
            keys.prefix + "expiring": model.expiring(),
            keys.unsettled: {i for i, task in model.tasks.items() if not task.settled},
            keys.prefix + "waiting:shapes": {model.tasks[i].need.shape for i in waiting},
            **by_shape,
        }

    def the_waiting_are_offered_for_dispatch(self) -> None:
        found = self.lab.ledger.waiting(0)
        assert {task.task_id for shape in found.shapes for task in shape.tasks} == self.model.in_state("waiting")

    def no_reservation_leaks(self) -> None:
        assert [self.lab.fleet.audit(name) for name in self.model.nodes] == [""] * len(self.model.nodes)

    def every_change_of_state_is_one_event(self) -> None:
        assert Counter(self.lab.kinds()) == +self.model.events
        self.model.events.clear()

    def tau_has_learned_from_each_success_once(self) -> None:
        assert self.lab.tau.learned()["cpu-light"] == self.model.tau

    def teardown(self) -> None:
        """When everything has ended, nothing is left."""
        for task_id in sorted(self.model.in_state("waiting", "delayed", "placed")):
            self.cancel(task_id)
        for task_id in sorted(self.model.in_state("running")):
            self._finish(task_id, self.model.tasks[task_id].attempt, "cancelled", None)
        for task_id in IDS:
            self.settle(task_id)
        self.the_state_is_as_the_model_says()
        self.every_change_of_state_is_one_event()
        prefix, client = self.lab.keys.prefix, self.lab.client
        left = {key.decode().removeprefix(prefix) for key in client.scan_iter() if client.ttl(key) == -1}
        always = {
            "fleet",
            "fleet:version",
            "heartbeats",
            "gone",
            "live",
            "events",
            "counters",
            "counters:nodes",
            "sweep",
            "tau",
            "waiting:parked",
        }
        assert left - always == {f"node:{name}" for name in self.model.nodes}
        assert client.get(prefix + "live") in (None, b"0")
        self.lab.client.close()


@pytest.mark.timeout(1800)
def test_the_invariants_hold_under_random_interleavings(redis_url: str) -> None:
    """Ten thousand steps, the same ones every time; the thorough profile draws anew and takes more."""
    LedgerMachine.steps_made = 0
    thorough = settings.get_current_profile_name() == "thorough"
    deployment = lab_settings(
        redis_url, timeout_s=TIMEOUT_S, lease_s=LEASE_S, margin_s=MARGIN_S, max_attempts=MAX_ATTEMPTS
    )
    run_state_machine_as_test(
        lambda: LedgerMachine(deployment),
        settings=settings(
            max_examples=settings().max_examples if thorough else 330,
            stateful_step_count=settings().stateful_step_count if thorough else 40,
            derandomize=not thorough,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    assert LedgerMachine.steps_made >= 10_000
