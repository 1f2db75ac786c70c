"""The epoch between the demo's waves: asked of the control process, as it then works at intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import geometric_mean
from typing import Any

from cloudai.app import CloudAI
from cloudai.local_nodes import LocalNode
from cloudai.names import EPOCH_TASK, control_queue
from cloudai.scheduling.parameters import GAParams, differences

#: Environment of a node: how many times as long work takes there as on the fastest.
PACE = "CLOUDAI_DEMO_PACE"
#: Who asked for the epoch, as its report says.
_TRIGGER = "demo"
#: How long to wait for the epoch, seconds: the control process may still be starting.
_WAIT_S = 60.0
_LOOK_EVERY_S = 0.1
#: Changes that the report lists.
_CHANGES_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Learned:
    """What the epoch did."""

    before: GAParams
    after: GAParams
    #: The epoch's own report; empty when there was no epoch.
    report: Mapping[str, Any] = field(default_factory=dict)
    #: Why there was none; "": there was one.
    missing: str = ""

    @property
    def changes(self) -> list[str]:
        """What is in force now and was not before, a line each."""
        return differences(self.before, self.after, _CHANGES_SHOWN)


@dataclass(frozen=True, slots=True)
class NodeSpeed:
    """How many times as long work takes on a node as on the one that declares to be the fastest."""

    declared: float
    #: Mean over the types; None: not learned.
    learned: float | None


def learn(app: CloudAI, look: Callable[[], None]) -> Learned:
    """Ask the control process for an epoch and wait for its report; `look` is called meanwhile and may raise."""
    deployment = app.deployment
    before = _in_force(app)
    known = {report.get("epoch_id") for report in deployment.epochs.latest()}
    queue = control_queue(deployment.settings.redis.namespace)
    app.send_task(EPOCH_TASK, kwargs={"trigger": _TRIGGER}, queue=queue, ignore_result=True)
    ends_at = time.monotonic() + _WAIT_S
    while time.monotonic() < ends_at:
        for report in deployment.epochs.latest(5):
            if report.get("trigger") == _TRIGGER and report.get("epoch_id") not in known:
                return Learned(before, _in_force(app), report)
        look()
        time.sleep(_LOOK_EVERY_S)
    return Learned(before, before, missing=f"the control process ran no epoch within {_WAIT_S:.0f} s")


def pace_of(node: LocalNode) -> float:
    """The pace that a node declares; 1: it says nothing."""
    return float(node.environment.get(PACE, "1"))


def node_speeds(nodes: Mapping[str, float], parameters: GAParams) -> dict[str, NodeSpeed]:
    """Declared paces of the nodes, by name, beside what the parameters say."""
    learned = {
        name: geometric_mean(factors)
        for name in nodes
        if (factors := [row[name] for row in parameters.speed.values() if name in row])
    }
    fastest = min(nodes, key=lambda name: nodes[name], default="")
    reference = learned.get(fastest)
    return {
        name: NodeSpeed(
            round(declared / nodes[fastest], 3),
            round(learned[name] / reference, 3) if reference and name in learned else None,
        )
        for name, declared in nodes.items()
    }


def _in_force(app: CloudAI) -> GAParams:
    published = app.deployment.parameters.read()
    return GAParams() if published is None else published.parameters
