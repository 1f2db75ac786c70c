"""Late binding: when capacity is released, the most urgent waiting tasks that fit are placed.

Who reports the end of an attempt has mostly looked at the waiting set a moment ago. So it chooses who follows on what
the attempt releases before it reports, and both go to Redis in one step (`end`). What that leaves open is placed after
a new look (`run`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from cloudai.fleet_view import MAX_AGE_S, FleetView
from cloudai.placing import Placing
from cloudai.scheduling.decision import Outcome
from cloudai.scheduling.dispatch_order import Waiting, dispatch_order, most_kept, starving
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.feasibility import could_ever_hold, matching
from cloudai.scheduling.requests import TaskRequest
from cloudai.scheduling.reservation import with_release, with_reservation
from cloudai.scheduling.resources import Resources
from cloudai.state.attempts import Claim, Finish, Report
from cloudai.state.ledger import Ledger
from cloudai.state.waiting import Proposal, WaitingSet

logger = logging.getLogger(__name__)


#: Waiting tasks of one shape (late ones and others apart) that one look reads, beside some from further behind.
MOST_A_SHAPE = 16
LEAST_A_SHAPE = 4
#: A queue of so many tasks is long: a look at it costs more than a submission.
LONG_QUEUE = 100


def _each(room: int) -> int:
    """How many waiting tasks of a shape a look should read, where there is room for so many tasks in all."""
    return min(MOST_A_SHAPE, max(LEAST_A_SHAPE, room))


@lru_cache(maxsize=1024)
def _read_request(text: str) -> TaskRequest:
    """A request as the ledger keeps it. InvalidRequest on anything else."""
    try:
        return TaskRequest.from_header(json.loads(text))
    except ValueError as error:
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest("request", text, "JSON") from error


def _waiting(found: WaitingSet, requests: dict[str, TaskRequest]) -> list[Waiting]:
    """The tasks of the shapes whose request is known, as the dispatch order takes them."""
    return [
        Waiting(task.task_id, requests[shape.shape], task.deadline, task.since, task.priority)
        for shape in found.shapes
        if shape.shape in requests
        for task in shape.tasks
    ]


class Dispatcher:
    """Places waiting tasks over this process's view of the fleet."""

    def __init__(self, placing: Placing, view: FleetView, ledger: Ledger, *, starvation_after_s: float) -> None:
        self._placing = placing
        self._view = view
        self._ledger = ledger
        self._starvation_after_s = starvation_after_s
        #: The last look at the waiting set; what was placed since is still in it.
        self._seen: WaitingSet | None = None
        #: How many waited at the last look; when a submission was followed by one (monotonic seconds).
        self._waiting = 0
        self._followed = float("-inf")

    def end(
        self, reports: Sequence[Report], node: str, released: Sequence[Claim]
    ) -> tuple[list[Finish], WaitingSet | None]:
        """Report attempts of `node` that have ended, and place their successors on what they held (`released`).

        Returns what became of each report, and a look to `run` with where more waiting tasks may fit.
        """
        view = self._view
        with view.lock:
            seen, self._seen = self._seen, None
            # Of a large fleet it reads many rows: where nobody waits, no report needs them.
            if seen is not None:
                view.refresh(MAX_AGE_S)
            try:
                successors, unseen = self._successors(seen, node, released)
                ended = self._ledger.finish_several(
                    reports,
                    look_since=view.version,
                    each=_each(len(reports)),
                    successors=successors,
                    parked=seen.parked if seen else 0,
                )
            finally:
                view.forget_assumptions()
            found = ended.waiting
            if found is None or not ended.followed or not all(node not in ("", "gone") for node in ended.followed):
                return ended.finishes, found
            # Each went where it was proposed, and the next in line were seen not to fit beside them.
            if seen is not None and not unseen and len(successors) < sum(len(shape.tasks) for shape in seen.shapes):
                view.saw_time(found.now)
                view.apply(found.changes)
                self._seen, found = found, None
            return ended.finishes, found

    def _successors(
        self, seen: WaitingSet | None, node: str, released: Sequence[Claim]
    ) -> tuple[list[Proposal], bool]:
        """Whom to place on what is about to be released, of the tasks that were seen last, as `_propose`. Assumes all
        that.
        """
        view = self._view
        row = view.snapshot.index.get(node)
        if seen is None or row is None:
            return [], False
        for claim in released:
            resources = Resources(claim.cpu_milli, claim.memory_kib, claim.gpu_milli, claim.storage_kib)
            view.assume(with_release(view.snapshot.states[row], resources, claim.devices))
        return self._propose(replace(seen, now=view.now()), self._requests(seen))

    def follow_submission(self) -> int:
        """As `run`, behind a submission that waits although something seemed to fit.

        With a long queue only now and then: what is released is given away by who releases it, and the sweep looks
        twice a second.
        """
        now = time.monotonic()
        if self._waiting >= LONG_QUEUE and now - self._followed < MAX_AGE_S:
            return 0
        self._followed = now
        return self.run()

    def run(self, found: WaitingSet | None = None) -> int:
        """Place until nothing more fits; returns how many tasks were placed. `found` is a look that was just taken."""
        placed, again = 0, True
        while again:
            step, again = self._step(found)
            placed, found = placed + step, None
        return placed

    def _step(self, found: WaitingSet | None) -> tuple[int, bool]:
        """Place what one look at the waiting set shows; returns how many, and whether another look may place more."""
        view = self._view
        with view.lock:
            if found is None:
                view.refresh(MAX_AGE_S)
                found = self._ledger.waiting(view.version, each=_each(int(view.snapshot.slots.sum())))
            view.saw_time(found.now)
            view.apply(found.changes)
            view.refresh(MAX_AGE_S)
            self._seen = None
            self._waiting = found.total
            if found.total == 0:
                return 0, False
            requests = self._requests(found)
            proposals, unseen = self._propose(found, requests)
            if not proposals:
                self._seen = found
                self._hold_for_starving(found, requests)
                return 0, False
            try:
                now, results, changes = self._ledger.place_waiting(proposals, view.version)
                view.saw_time(now)
                view.apply(changes)
            finally:
                view.forget_assumptions()
        placed = sum(1 for node in results if node not in ("", "gone"))
        seen = sum(len(shape.tasks) for shape in found.shapes)
        # All that was seen went somewhere and there is more, or somebody was faster and the view knows better now.
        more = unseen or len(proposals) == seen < found.total or placed < len(proposals)
        if not more:
            gone = {p.task_id for p in proposals}
            self._seen = found.without(gone)
        return placed, more and placed > 0

    def _requests(self, found: WaitingSet) -> dict[str, TaskRequest]:
        """The request of each waiting shape, by shape."""
        requests = {}
        for shape in found.shapes:
            try:
                requests[shape.shape] = _read_request(shape.request)
            except InvalidRequest as error:
                logger.error(
                    "waiting-request-unreadable shape=%s tasks=%d first=%s: they wait for ever; cancel them (%s)",
                    shape.shape, len(shape.tasks), shape.tasks[0].task_id, error,
                )  # fmt: skip
        return requests

    def _propose(self, found: WaitingSet, requests: dict[str, TaskRequest]) -> tuple[list[Proposal], bool]:
        """Candidates for the tasks that fit, in dispatch order, each assuming the reservations of those before it; and
        whether tasks that were not seen may come before others that fit.
        """
        view = self._view
        shape_of = {task.task_id: shape.shape for shape in found.shapes for task in shape.tasks}
        further = {task.task_id for shape in found.shapes for task in shape.tasks if task.further}
        placing = self._placing
        slowdown = {shape: placing.slowdown(request) for shape, request in requests.items()}
        waiting = _waiting(found, requests)
        best = {
            task.task_id: slowdown[shape_of[task.task_id]]
            * placing.tau(task.request, task.deadline - task.waiting_since)
            for task in waiting
        }
        proposals: list[Proposal] = []
        unseen = False
        #: Shapes that have a proposal, and whether it comes from further behind.
        served: dict[str, bool] = {}
        blocked: set[tuple[str, bool]] = set()
        for task in dispatch_order(waiting, best, found.now, weights=view.parameters):
            shape = shape_of[task.task_id]
            # What is held for one task is closed to the others of its shape, so its own turn is looked at apart.
            key = (shape, task.task_id in view.snapshot.held.values())
            if key in blocked:
                continue
            decision = placing.decide(
                task.task_id, task.request, deadline=task.deadline, arrival=task.waiting_since
            )
            if decision.outcome is not Outcome.PLACE:
                blocked.add(key)
                continue
            from_behind = task.task_id in further
            if shape in served and (from_behind or served[shape]):
                blocked.add(key)
                unseen = True
                continue
            served[shape] = from_behind
            candidates = tuple(decision.candidate_features())
            proposals.append(
                Proposal(
                    task_id=task.task_id,
                    decision=decision.to_record(),
                    fallback=decision.fallback_reason,
                    predicted_s=decision.runtimes[0],
                    parameters_version=decision.parameters_version,
                    candidates=candidates,
                )
            )
            chosen = view.snapshot.states[view.snapshot.index[candidates[0][0]]]
            view.assume(with_reservation(chosen, task.request.resources))
        return proposals, unseen

    def _hold_for_starving(self, found: WaitingSet, requests: dict[str, TaskRequest]) -> None:
        """Keep a node for a task that waited too long while smaller ones passed it (backfill with a reservation)."""
        held = set(self._view.snapshot.held.values())
        if len(held) >= most_kept(len(self._view.snapshot)):
            return
        held |= {task.task_id for shape in found.shapes for task in shape.tasks if task.hold}
        waiting = _waiting(found.without(held), requests)
        for task in starving(waiting, found.now, self._starvation_after_s):
            node = self._node_to_hold(task.request)
            if node is not None and self._ledger.hold(task.task_id, node):
                logger.info(
                    "node-held node=%s task=%s: it has waited %.0f s while smaller tasks passed it",
                    node, task.task_id, found.now - task.waiting_since,
                )  # fmt: skip
                return

    def _node_to_hold(self, request: TaskRequest) -> str | None:
        """The node that will be free for it soonest: of those that could hold it, the one with the most free of its
        CPU.
        """
        snapshot = self._view.snapshot
        able = could_ever_hold(request, snapshot) & matching(request, snapshot)
        best: tuple[float, str] | None = None
        for row, name in enumerate(snapshot.names):
            if able[row] and snapshot.accepting[row] and name not in snapshot.held:
                missing = max(
                    (request.resources.cpu - snapshot.cpu[row]) / max(snapshot.cpu_capacity[row], 1e-9),
                    (request.resources.memory - snapshot.memory[row]) / max(snapshot.memory_capacity[row], 1e-9),
                    (request.resources.gpu - snapshot.gpu[row]) / max(snapshot.gpu_capacity[row], 1e-9),
                )
                if best is None or (missing, name) < best:
                    best = (missing, name)
        return None if best is None else best[1]
