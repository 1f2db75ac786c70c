"""Many submissions at once, against a plain Celery group of the same jobs."""

from __future__ import annotations

from cloudai.bench.conversation import Child
from cloudai.bench.figures import Figure
from cloudai.bench.fleet import register
from cloudai.bench.lab import Lab
from cloudai.bench.rounds import take_turns

_NODES = 1000
#: Jobs of one round.
_ROUND = 1000


def times_group_rate(lab: Lab) -> Figure:
    """Rate of `apply_many` over a fleet of 1 000 nodes, as a multiple of a group's."""
    with lab.server() as plain_server, lab.server() as our_server:
        register(our_server.url, _NODES)
        with lab.plain_producer(plain_server) as plain, lab.cloudai_producer(our_server) as ours:
            sides = {"group": lambda: _one_round(plain), "ours": lambda: _one_round(ours)}
            seen = take_turns(5 if lab.quick else 11, sides)
    return Figure(
        seen.rate_ratio("ours", "group"),
        f"plain Celery's group of {_ROUND}: {_ROUND / seen.median_s('group'):.0f}/s; "
        f"apply_many: {_ROUND / seen.median_s('ours'):.0f}/s",
    )


def _one_round(producer: Child) -> float:
    seconds = float(producer.ask("bulk", count=_ROUND))
    producer.ask("forget")
    return seconds
