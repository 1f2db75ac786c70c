"""Deciding where tasks go, in any process: at submission, and for waiting tasks when capacity is released."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import inf
from time import perf_counter

from cloudai.fleet_view import MAX_AGE_S, FleetView
from cloudai.request_header import RequestHeader
from cloudai.scheduling.deadlines import sla_seconds
from cloudai.scheduling.decision import Decision, Outcome
from cloudai.scheduling.errors import InvalidRequest, Unplaceable
from cloudai.scheduling.pipeline import Placer
from cloudai.scheduling.policies import GuardState
from cloudai.scheduling.requests import TaskRequest
from cloudai.scheduling.scheduler import Context
from cloudai.settings import Settings
from cloudai.state.ledger import Ledger

logger = logging.getLogger(__name__)


def _say(decision: Decision, rate: float) -> None:
    """Tell the operator that the share of fallbacks has crossed a bound (spec section 5)."""
    cause = f"{decision.fallback_reason or 'none'} {decision.fallback_detail}".strip()
    share = f"{rate:.0%} of the latest decisions, lately {cause}"
    if decision.guard_event is GuardState.ALERT:
        logger.warning("fallback-alert: Round-Robin had to decide %s. See `cloudai explain` of such a task", share)
    elif decision.guard_event is GuardState.TAKEN_OVER:
        logger.error(
            "fallback-takeover: Round-Robin decides everything from now on, until the cause is gone (%s)", share
        )
    else:
        logger.warning("fallback-over: the scheduler decides again")


class Placing:
    """The placement pipeline over this process's view of the fleet."""

    def __init__(self, view: FleetView, ledger: Ledger, settings: Settings) -> None:
        self._view = view
        self._ledger = ledger
        self._settings = settings
        self.placer = Placer.from_settings(settings.scheduling)

    def decide(
        self, task_id: str, request: TaskRequest, *, deadline: float | None, arrival: float | None = None
    ) -> Decision:
        """Decide for one task over the view as it is.

        `deadline` in epoch seconds, None: k * tau from now; `arrival` in epoch seconds, None: it arrives now.
        """
        begun = perf_counter()
        view = self._view
        now = view.now()
        window = inf if deadline is None else deadline - (now if arrival is None else arrival)
        tau = self.tau(request, window)
        slack = self.sla_s(request, tau) if deadline is None else deadline - now
        context = Context(snapshot=view.snapshot, parameters=view.parameters, tau=tau, slack_s=slack, now=now)
        decision = self.placer.decide(task_id, request, context)
        if decision.guard_event is not None:
            _say(decision, self.placer.policy.guard.rate)
        self._ledger.times.observe(perf_counter() - begun)
        return decision

    def decide_into(self, header: RequestHeader) -> None:
        """Decide for a submission and write candidates, decision record and predictions into its header."""
        request = header.request
        view = self._view
        with view.lock:
            view.refresh(MAX_AGE_S)
            self.check_target(request)
            decision = self.decide(header.task_id, request, deadline=header.deadline)
        if decision.outcome is Outcome.NEVER and request.unplaceable == "reject":
            raise Unplaceable(decision.why_never)
        header["cand"] = decision.candidate_features()
        header["rec"] = decision.to_record()
        header["fb"] = decision.fallback_reason
        header["tau"] = decision.tau
        header["sla"] = self.sla_s(request, decision.tau)
        header["pred"] = decision.predicted_s
        header["par"] = decision.parameters_version

    def slowdown(self, request: TaskRequest) -> float:
        """Runtime over tau on the best of the nodes that can take it now; where none can, on the fastest node."""
        view = self._view
        parameters = view.parameters
        context = Context(snapshot=view.snapshot, parameters=parameters, tau=1.0, slack_s=inf, now=view.now())
        shortest = self.placer.shortest(request, context)
        if shortest is not None:
            return shortest
        kind = request.task_type
        fastest = min(parameters.speed.get(kind, {}).values(), default=1.0)
        return parameters.base.get(kind, 1.0) * fastest

    def tau(self, request: TaskRequest, window_s: float = inf) -> float:
        """Expected runtime, s: the family's or the type's (spec section 2), or what the time from arrival to deadline,
        `window_s`, has been seen to foretell better; at most the user's own limit.
        """
        tau = self._view.tau_of(request.task_type, request.family, window_s)
        return tau if request.limit_s is None else min(tau, request.limit_s)

    def sla_s(self, request: TaskRequest, tau: float) -> float:
        """Time from arrival to deadline, seconds: k * tau (spec section 3)."""
        scheduling = self._settings.scheduling
        k = request.sla_multiplier
        if k is None:
            k = scheduling.sla_multiplier_by_type.get(str(request.task_type), scheduling.sla_multiplier)
        return sla_seconds(k, tau)

    def check_target(self, request: TaskRequest) -> None:
        """InvalidRequest when the request names a node that is not registered."""
        target = request.target_worker_id
        if target is None or target in self._view.snapshot.index:
            return
        self._view.refresh()
        if target not in self._view.snapshot.index:
            known: Sequence[str] = sorted(self._view.snapshot.index)
            shown = ", ".join(known[:20]) or "none is registered"
            raise InvalidRequest("target_worker_id", target, f"the name of a registered node: {shown}")
