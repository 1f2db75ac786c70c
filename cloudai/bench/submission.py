"""`apply_async` with RTS against plain Celery's."""

from __future__ import annotations

from cloudai.bench.conversation import Child
from cloudai.bench.figures import Figure
from cloudai.bench.fleet import register
from cloudai.bench.lab import Lab
from cloudai.bench.rounds import compare
from cloudai.deployment import Deployment
from cloudai.embedded import EmbeddedValkey
from cloudai.settings import Settings

#: Submissions in a round.
_ROUND = 1000


def registered_fleet(server: EmbeddedValkey, nodes: int) -> None:
    """Fill the server with a fleet."""
    deployment = Deployment(Settings.load(redis={"url": server.url}))
    register(deployment, nodes)
    deployment.client.close()


def share_of_plain_rate(lab: Lab, nodes: int) -> Figure:
    """Rate of a loop of `apply_async` over a fleet, as a share of plain Celery's."""
    with lab.servers() as (plain_server, our_server):
        registered_fleet(our_server, nodes)
        with lab.plain_producer(plain_server) as plain, lab.cloudai_producer(our_server) as ours:

            def one_round(producer: Child) -> float:
                seconds: float = producer.ask("submit", count=_ROUND, total=_ROUND)
                producer.ask("forget")
                return seconds

            seen = compare(lab.rounds, lambda: one_round(plain), lambda: one_round(ours))
    return Figure(
        seen.rate_ratio,
        f"plain Celery's apply_async: {_ROUND / seen.reference_median_s:.0f}/s; "
        f"ours: {_ROUND / seen.candidate_median_s:.0f}/s",
    )


def profile(lab: Lab, nodes: int) -> str:
    """The hottest functions of the loop of `apply_async`."""
    with lab.servers() as (_, server):
        registered_fleet(server, nodes)
        with lab.cloudai_producer(server) as ours:
            ours.ask("submit", count=_ROUND, total=_ROUND)
            text: str = ours.ask("profile", count=_ROUND)
    return text
