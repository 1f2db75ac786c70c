"""`apply_async` with RTS against plain Celery's."""

from __future__ import annotations

from cloudai.bench.conversation import Child
from cloudai.bench.figures import Figure
from cloudai.bench.fleet import register
from cloudai.bench.lab import Lab
from cloudai.bench.rounds import take_turns

#: Submissions of one round: short ones, so that a neighbour's burst hits both sides.
_ROUND = 250
#: Submissions that are profiled.
_PROFILED = 1000


def share_of_plain_rate(lab: Lab, nodes: int) -> Figure:
    """Rate of a loop of `apply_async` over a fleet, as a share of plain Celery's."""
    with lab.server() as plain_server, lab.server() as our_server:
        register(our_server.url, nodes)
        with lab.plain_producer(plain_server) as plain, lab.cloudai_producer(our_server) as ours:
            seen = take_turns(
                8 if lab.quick else 20, {"plain": lambda: _one_round(plain), "ours": lambda: _one_round(ours)}
            )
    return Figure(
        seen.rate_ratio("ours", "plain"),
        f"plain Celery's apply_async: {_ROUND / seen.median_s('plain'):.0f}/s; "
        f"ours: {_ROUND / seen.median_s('ours'):.0f}/s",
    )


def _one_round(producer: Child) -> float:
    seconds = float(producer.ask("submit", count=_ROUND, total=_ROUND))
    producer.ask("forget")
    return seconds


def profile(lab: Lab, nodes: int, *, bulk: bool = False) -> str:
    """The hottest functions of the loop of `apply_async`, or of `apply_many`."""
    with lab.server() as server:
        register(server.url, nodes)
        with lab.cloudai_producer(server) as ours:
            _one_round(ours)
            return str(ours.ask("profile", count=_PROFILED, bulk=bulk))
