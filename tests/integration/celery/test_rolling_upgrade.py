"""Nodes are upgraded one after the other while work goes on: every task runs once, none fails."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path

from ...waiting import until
from .cluster import Cluster, lines

#: Never run out here: a node that leaves in order needs none.
LEASE = {"lease_s": 60.0, "heartbeat_timeout_s": 20.0}


def test_nodes_are_replaced_one_by_one_under_load(bare_cluster: Cluster, witness: Path) -> None:
    cluster = bare_cluster
    nodes = {name: cluster.start(name, cpu=2, **LEASE) for name in ("a", "b")}
    done = threading.Event()
    results = []

    def load() -> None:
        while not done.is_set():
            results.append(cluster["mark"].delay(str(witness), str(len(results))))
            done.wait(0.02)

    producer = threading.Thread(target=load)
    producer.start()
    try:
        for name in ("a", "b"):
            until(lambda: len(results) > 20)
            cluster.deployment.fleet.drain(f"{name}@t")
            # As `cloudai drain --wait` does: its tasks are left to end, what it has not begun goes elsewhere.
            until(lambda name=name: cluster.deployment.fleet.entry(f"{name}@t")["slots"] == "2", f"{name} is empty", 60)
            nodes[name].signal(signal.SIGTERM)
            assert nodes[name].ended(60) == 0
            before = len(results)
            nodes[name] = cluster.start(name, cpu=2, **LEASE)
            until(lambda before=before: len(results) > before + 20)
    finally:
        done.set()
        producer.join()
    assert [result.get(timeout=60) for result in results] == [str(number) for number in range(len(results))]
    assert Counter(lines(witness)) == {str(number): 1 for number in range(len(results))}
    cluster.quiet()
