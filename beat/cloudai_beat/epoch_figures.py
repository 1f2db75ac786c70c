"""What is promised of an epoch, as rows of `cloudai bench`."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from cloudai.bench.conversation import BenchError
from cloudai.bench.figures import Figure, Promise
from cloudai.bench.lab import Lab, cloudai_environment
from cloudai.embedded import EmbeddedMongo

#: Size of the history.
RECORDS, NODES = 10_000, 50


@cache
def _epoch(lab: Lab) -> dict[str, Any]:
    """One epoch in a process of its own, on servers of its own; both rows look at the same one."""
    with lab.server() as server, EmbeddedMongo(lab.folder / "epoch-mongo") as mongo:
        environment = cloudai_environment(server, optimiser={"mongo_url": mongo.url, "max_records": RECORDS})
        with lab.child("cloudai_beat.epoch_run", environment=environment) as child:
            child.ask("prepare", records=RECORDS, nodes=NODES)
            seen: dict[str, Any] = child.ask("epoch")
    if seen["outcome"] != "published":
        raise BenchError(f"the epoch published nothing: {seen['reason']}")
    return seen


def seconds(lab: Lab) -> Figure:
    """Time of an epoch, the reading of its history and the search included."""
    seen = _epoch(lab)
    return Figure(
        seen["took_s"],
        f"fixed goal; {seen['records']} records of {NODES} nodes: reading {seen['reading_s']:.1f} s, search "
        f"{seen['search_s']:.1f} s ({seen['evaluations']} candidates) on {os.cpu_count()} cores",
    )


def peak_mib(lab: Lab) -> Figure:
    """Most memory that the epoch's process ever had, its libraries included."""
    seen = _epoch(lab)
    return Figure(seen["peak_mib"], f"fixed goal; {seen['before_mib']:.0f} MiB before the epoch")


PROMISES: tuple[Promise, ...] = (
    Promise("epoch-10000-records-s", 10, "lower", seconds),
    Promise("epoch-peak-mib", 1024, "lower", peak_mib),
)
