"""What is done to the cluster and when: drawn from a seed, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Injection:
    """One thing that is done."""

    #: Seconds from the beginning.
    at_s: float
    what: str
    #: A node by its place in the plan (not by its name: a node that never comes back has an heir of another name).
    place: str = ""
    #: How long it lasts or how late its repair comes, seconds.
    for_s: float = 0.0
    how: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign."""

    seed: int
    #: Submissions that must be accepted.
    jobs: int
    #: Over which the jobs are submitted, seconds.
    load_s: float
    #: Places of nodes: `plain`, `skewed`, `small-disk`, `docker`, `far`, with a number.
    places: tuple[str, ...]
    lease_s: float
    margin_s: float
    heartbeat_timeout_s: float
    injections: tuple[Injection, ...]
    #: Whether the time that recoveries take is part of the verdict.
    judges_recovery: bool
    #: Between two epochs of the control process, seconds.
    epoch_interval_s: float
    #: Whether to wait, in the end, for an epoch that has learned from what was recorded.
    learns: bool
    #: From the last injection until everything must have ended, seconds.
    drain_s: float = field(default=240.0)


LEASE_S = 6.0
MARGIN_S = 1.0
#: A stopped node is woken so long after others took over, when what they took over has ended.
WAKE_LATE_S = 9.0


def full_plan(seed: int, jobs: int) -> Plan:
    """Everything, over about eight minutes."""
    chance = random.Random(seed)
    places = ("plain-1", "plain-2", "skewed", "small-disk", "docker", "far")
    victims = ("plain-1", "plain-2", "skewed", "small-disk", "plain-1", "plain-2", "docker", "far")
    done: list[Injection] = []
    # 50 nodes are killed: half are back at once, some late, some never (an heir of another name takes the place).
    for i in range(50):
        how, late = "at once", 0.0
        if i % 2:
            how, late = ("late", chance.uniform(3, 12)) if i % 10 < 7 else ("never", 1.0)
        done.append(Injection(12 + i * 9.0 + chance.uniform(-2, 2), "kill node", victims[i % 8], late, how))
    for i in range(20):
        how = "kill" if i % 5 < 3 else "stop"
        length = 16.0 if i == 13 else chance.uniform(0.2, 3.5)
        done.append(Injection(25 + i * 21.0 + chance.uniform(-3, 3), "redis away", "", length, how))
    for at, place in ((60, "plain-2"), (180, "plain-1"), (330, "skewed")):
        done.append(Injection(at, "freeze node", place, LEASE_S + MARGIN_S + WAKE_LATE_S))
    for at, length in ((40, 2.5), (130, 14.0), (260, 14.0), (390, 18.0)):
        done.append(Injection(at, "cut network", "far", length))
    done += [Injection(at, "fill disk", "small-disk", 10.0) for at in (100, 300)]
    done += [Injection(at, "fill redis", "", 5.0) for at in (150, 350)]
    done += [Injection(at, "restart engine", "docker", 2.0) for at in (90, 240, 410)]
    # A whole machine goes down: it is back within its lease, it is back late, its like has another name.
    done += [
        Injection(180, "lose machine", "docker", LEASE_S + MARGIN_S + 5.0, "late"),
        Injection(257, "lose machine", "plain-2", 1.0, "never"),
        Injection(318, "lose machine", "plain-1", 0.0, "at once"),
    ]
    done += [Injection(at, "kill beat") for at in (45, 120, 200, 310, 420)]
    done += [Injection(at, "kill control") for at in (52, 140, 230, 335, 415)]
    done += [Injection(at, "kill producer") for at in (35, 110, 215, 320, 400)]
    done += [Injection(at, "poison") for at in (20, 205, 370)]
    done += [Injection(at, "restart node", place) for at, place in ((75, "plain-1"), (225, "skewed"), (380, "plain-2"))]
    return Plan(
        seed, jobs, 440.0, places, LEASE_S, MARGIN_S, 3.0, _in_order(done),
        judges_recovery=True, epoch_interval_s=15.0, learns=True,
    )  # fmt: skip


def short_plan(seed: int, jobs: int) -> Plan:
    """The most telling ones in half a minute, on any machine: no root, no engine, no compiler needed."""
    chance = random.Random(seed)
    done = [
        Injection(2.0, "poison"),
        Injection(3.0 + chance.random(), "kill node", "plain-1", 0.0, "at once"),
        Injection(6.0, "kill producer"),
        Injection(8.0 + chance.random(), "freeze node", "plain-2", 18.0),
        Injection(9.0 + chance.random(), "lose machine", "plain-3", 1.0, "never"),
        Injection(14.0 + chance.random(), "redis away", "", 0.5, "kill"),
        Injection(20.0 + chance.random(), "redis away", "", 0.5, "stop"),
    ]
    places = ("plain-1", "plain-2", "plain-3")
    return Plan(
        seed, jobs, 22.0, places, 8.0, 3.0, 4.0, _in_order(done),
        judges_recovery=False, epoch_interval_s=60.0, learns=False,
    )  # fmt: skip


def _in_order(injections: Sequence[Injection]) -> tuple[Injection, ...]:
    return tuple(sorted(injections, key=lambda injection: injection.at_s))
