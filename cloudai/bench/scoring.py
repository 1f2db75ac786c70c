"""Scoring one task on every node, in memory."""

from __future__ import annotations

from cloudai.bench.figures import Figure
from cloudai.bench.lab import Lab


def microseconds(lab: Lab, nodes: int) -> Figure:
    """Median time of one score over the fleet, in a process of its own."""
    with lab.child("cloudai.bench.scorer", environment={}) as scorer:
        seen = scorer.ask("score", nodes=nodes, calls=500 if lab.quick else 2000)
    return Figure(
        seen["formula"],
        f"fixed goal; with the best five and their terms {seen['rank']:.0f} us, "
        f"whole decision with filter and record {seen['decide']:.0f} us",
    )
