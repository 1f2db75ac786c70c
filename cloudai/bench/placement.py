"""One whole placement, Redis included."""

from __future__ import annotations

from statistics import median

from cloudai.bench.figures import Figure
from cloudai.bench.fleet import register
from cloudai.bench.lab import Lab, cloudai_environment

#: Placements of one round.
_ROUND = 500


def p99_milliseconds(lab: Lab, nodes: int) -> Figure:
    """99th percentile of a placement's time (decide, reserve, store, ring), the median of the rounds."""
    with lab.server() as server:
        register(server.url, nodes)
        with lab.child("cloudai.bench.placer", environment=cloudai_environment(server)) as placer:
            placer.ask("place", count=_ROUND)
            rounds = [placer.ask("place", count=_ROUND) for _ in range(5 if lab.quick else 15)]
    seen = {name: median(found[name] for found in rounds) for name in rounds[0]}
    return Figure(
        seen["p99"],
        f"fixed goal; median {seen['p50']:.2f} ms; a PING beside it: median {seen['ping_p50']:.2f} ms, "
        f"p99 {seen['ping_p99']:.2f} ms",
    )
