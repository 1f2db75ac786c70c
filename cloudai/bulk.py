"""Many submissions of one task at once: what `apply_async` does for each, in a fraction of its time.

The message is built by Celery and kombu once; the copies differ in id, arguments and what Celery derives from them.
Decisions are made for a few tasks at a time, and a chunk is on its way to Redis while the next one is built.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, islice
from typing import Any

from celery.result import AsyncResult
from celery.utils import uuid
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from cloudai.deployment import MEMORY_FULL, Deployment
from cloudai.errors import ClusterFull
from cloudai.message_form import FORM_OPTIONS, Call, MessageForm
from cloudai.scheduling.decision import Decision
from cloudai.scheduling.errors import InvalidRequest, Unplaceable
from cloudai.scheduling.feasibility import NO_REASON, lasting_code
from cloudai.scheduling.formula import reserved_share
from cloudai.scheduling.nodes import NodeState
from cloudai.scheduling.requests import Resources, TaskRequest
from cloudai.scheduling.reservation import with_reservation
from cloudai.scheduling.units import MILLI
from cloudai.state.link import pack
from cloudai.state.submissions import Placement, Submission, read_placement
from cloudai.submission import kept_fields, placed_by, request_texts

#: Tasks that one decision serves: its candidates are filled in turn, by how much a task adds to the load of each.
TASKS_A_DECISION = 8
#: Tasks that are sent to Redis together.
TASKS_A_CHUNK = 32

#: Chunks after which the view is read anew; between, it is what this submission itself has changed.
CHUNKS_A_REFRESH = 32

#: A fleet version that no fleet reaches: the answers then carry no changes.
_NO_CHANGES = 1 << 53

#: Options of `apply_async` that a bulk submission takes, beside those of CloudAI.
ALLOWED = FORM_OPTIONS | {"expires"}


def submit_many(
    app: Any, task: Any, calls: Iterable[Call], asked: Mapping[str, Any], options: Mapping[str, Any]
) -> list[AsyncResult]:
    """Submit one task with many arguments; returns the results in the order of the calls.

    Every call is checked before the first is sent: InvalidRequest and Unplaceable leave nothing written. ClusterFull
    says how many were accepted, its `accepted` are their ids. Celery's publish signals and task-sent events are not
    sent.
    """
    calls = list(calls)
    refused = sorted(set(options) - ALLOWED)
    if refused:
        raise InvalidRequest(refused[0], options[refused[0]], f"one of {', '.join(sorted(ALLOWED))}")
    if not calls:
        return []
    header = app.request_header(task.name, *calls[0], asked, task_id="")
    for args, kwargs in calls:
        task.check_submission(args, kwargs)
    limits = [task.runtime_limit(kwargs, options) for _, kwargs in calls]
    longest = None if None in limits else max(limit for limit in limits if limit is not None)
    request = replace(header.request, limit_s=longest)
    app.deployment.placing.check_target(request)
    form = MessageForm(app, task, options)
    submitter = _Submitter(app.deployment, request, header.deadline, form)
    submitter.run([(call, form.body(call)) for call in calls])
    # A plain list: a ResultSet would subscribe to each of them, a round trip apiece.
    return [app.AsyncResult(task_id) for task_id in submitter.task_ids]


@dataclass(slots=True)
class _Sent:
    """A chunk whose answers are still to be read."""

    submissions: list[tuple[Submission, list[tuple[str, str]]]]
    connection: Any


class _Submitter:
    """Sends chunks and reads the answers of one while the next is built."""

    def __init__(
        self, deployment: Deployment, request: TaskRequest, deadline: float | None, form: MessageForm
    ) -> None:
        self._deployment = deployment
        self._request = request
        self._deadline = deadline
        self._form = form
        self._request_json, self._header_json = request_texts(request)
        self.task_ids: list[str] = []
        self._wake_dispatcher = False
        self._full = False

    def run(self, calls: Sequence[tuple[Call, str]]) -> None:
        """Send all of them; what was accepted is in `task_ids`, in order."""
        deployment = self._deployment
        deployment.client.script_load(deployment.scripts.place.source)
        expires = self._expires()
        view = deployment.view
        with view.lock:
            try:
                sent: _Sent | None = None
                for number, chunk in enumerate(_chunks(calls, TASKS_A_CHUNK)):
                    if number % CHUNKS_A_REFRESH == 0:
                        view.forget_assumptions()
                        view.refresh()
                    submissions = list(self._submissions(chunk, expires))
                    if sent is not None:
                        self._read(sent)
                    if self._full:
                        break
                    sent = self._send(submissions)
                else:
                    if sent is not None:
                        self._read(sent)
            finally:
                view.forget_assumptions()
                view.expire()
        if self._wake_dispatcher:
            deployment.dispatcher.follow_submission()
        if self._full:
            raise ClusterFull(
                f"{len(self.task_ids)} of {len(calls)} tasks were accepted, then limits.max_in_flight "
                f"({deployment.settings.limits.max_in_flight}) was reached: submit the rest when some have ended",
                tuple(self.task_ids),
            )

    def _expires(self) -> float:
        return datetime.fromisoformat(self._form.expires).timestamp() if self._form.expires else 0.0

    def _submissions(
        self, calls: Sequence[tuple[Call, str]], expires: float
    ) -> Iterator[tuple[Submission, list[tuple[str, str]]]]:
        for few in _chunks(calls, TASKS_A_DECISION):
            ids = [uuid() for _ in few]
            decision, offers = self._decide(ids)
            record = decision.to_record()
            for task_id, (call, body), candidates in zip(ids, few, offers, strict=True):
                yield self._submission(task_id, call, body, decision, record, expires), candidates

    def _decide(self, task_ids: Sequence[str]) -> tuple[Decision, list[list[tuple[str, str]]]]:
        """One decision for a few equal tasks, and the candidates of each, best first."""
        deployment, request = self._deployment, self._request
        decision = deployment.placing.decide(task_ids[0], request, deadline=self._deadline)
        if decision.why_never and request.unplaceable == "reject":
            raise Unplaceable(decision.why_never)
        ranked = decision.candidate_features()
        if not ranked:
            return decision, [[] for _ in task_ids]
        snapshot = deployment.view.snapshot
        states = [snapshot.states[snapshot.index[name]] for name, _ in ranked]
        scores = list(decision.scores or range(len(ranked)))
        weight = deployment.view.parameters.beta
        offers: list[list[tuple[str, str]]] = []
        for _ in task_ids:
            # The node of the lowest score; each task that goes there adds its share to the node's load term, beta * L.
            chosen = min(range(len(ranked)), key=scores.__getitem__)
            if decision.exploratory and not offers:
                chosen = 0
            offers.append([ranked[chosen], *(other for i, other in enumerate(ranked) if i != chosen)])
            if lasting_code(request, states[chosen]) == NO_REASON:
                states[chosen] = with_reservation(states[chosen], request.resources)
                scores[chosen] += weight * _share(states[chosen], request.resources)
            else:
                scores[chosen] = float("inf")
        for state in states:
            deployment.view.assume(state)
        return decision, offers

    def _submission(
        self, task_id: str, call: Call, body: str, decision: Decision, record: str, expires: float
    ) -> Submission:
        nonce = secrets.token_hex(8)
        return Submission(
            task_id=task_id,
            nonce=nonce,
            **placed_by(self._request),
            sla_s=self._deployment.placing.sla_s(self._request, decision.tau),
            deadline=self._deadline,
            eta=0.0,
            expires=expires,
            priority=self._form.priority,
            name=self._form.name,
            retries=0,
            request=self._request_json,
            message=self._form.fill(task_id, nonce, call, self._header_json, body),
            decision=record,
            fallback=decision.fallback_reason,
            extra=kept_fields(self._request, decision.tau, decision.parameters_version, decision.predicted_s),
        )

    def _send(self, submissions: list[tuple[Submission, list[tuple[str, str]]]]) -> _Sent:
        deployment = self._deployment
        connection = deployment.client.connection_pool.get_connection()
        sent = _Sent(submissions, connection)
        try:
            connection.send_packed_command([pack(command) for command in self._commands(submissions)])
        except (RedisConnectionError, RedisTimeoutError):
            self._again(sent)
        return sent

    def _commands(
        self, submissions: list[tuple[Submission, list[tuple[str, str]]]]
    ) -> Iterator[tuple[Any, ...]]:
        """One call of the place script for a few tasks: a script of many would keep others waiting for Redis."""
        deployment = self._deployment
        for few in _chunks(submissions, TASKS_A_DECISION):
            args = [deployment.ledger.place_args(submission, candidates, _NO_CHANGES) for submission, candidates in few]
            yield (
                "EVALSHA", deployment.scripts.place.sha, 1, deployment.keys.prefix, *chain.from_iterable(args)
            )  # fmt: skip

    def _again(self, sent: _Sent) -> None:
        """Nobody knows what Redis took of a chunk: send it again, one by one. A nonce makes the second time
        harmless.
        """
        sent.connection.disconnect()
        self._deployment.client.connection_pool.release(sent.connection)
        sent.connection = None
        for submission, candidates in sent.submissions:
            placement = self._deployment.ledger.place(submission, candidates, _NO_CHANGES)
            self._take(submission, placement, bool(candidates))

    def _read(self, sent: _Sent) -> None:
        if sent.connection is None:
            return
        try:
            calls = -(-len(sent.submissions) // TASKS_A_DECISION)
            replies = [reply for _ in range(calls) for reply in sent.connection.read_response()]
        except (RedisConnectionError, RedisTimeoutError):
            self._again(sent)
            return
        except RedisError as error:
            # A refusal in the middle: the answers behind it are unread.
            sent.connection.disconnect()
            if isinstance(error, OutOfMemoryError):
                accepted = tuple(self.task_ids)
                raise ClusterFull(f"{MEMORY_FULL}; {len(accepted)} tasks were accepted before", accepted) from error
            raise
        finally:
            if sent.connection is not None:
                self._deployment.client.connection_pool.release(sent.connection)
        for (submission, candidates), reply in zip(sent.submissions, replies, strict=True):
            self._take(submission, read_placement(reply), bool(candidates))
        if self._deployment.settings.redis.durability == "strict":
            self._deployment.confirm(sent.submissions[-1][0].task_id)

    def _take(self, submission: Submission, placement: Placement, offered: bool) -> None:
        if placement.status == "full":
            self._full = True
            return
        self.task_ids.append(submission.task_id)
        self._wake_dispatcher |= placement.status == "waiting" and offered


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _share(state: NodeState, resources: Resources) -> float:
    """The largest part of the node's capacity that one task takes."""
    return max(
        reserved_share(state.cpu_capacity, state.cpu_capacity - resources.cpu_milli),
        reserved_share(state.memory_capacity, state.memory_capacity - resources.memory_kib),
        reserved_share(state.gpu_capacity * MILLI, state.gpu_capacity * MILLI - resources.gpu_milli),
    )
