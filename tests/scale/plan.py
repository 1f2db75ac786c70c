"""What a scale run does: the fleet, the load and its phases, drawn from a seed, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cloudai.settings import Settings
from cloudai.state.fleet import NodeCapacity

_GIB = 2**20


@dataclass(frozen=True, slots=True)
class Plan:
    """A scale run. Times in seconds."""

    seed: int
    #: Nodes in all, and of those that are there at first, for figures of a small fleet.
    nodes: int
    few: int
    #: Processes that they live in.
    shards: int
    #: Submissions while few nodes are there; in the steady phase; in the burst.
    first: int
    steady: int
    burst: int
    #: Over which the first and the steady ones are submitted.
    first_s: float
    steady_s: float
    #: Mean work of a task, on a node of speed 1.
    work_s: float
    #: Of a hundred tasks of the burst, how many are of each kind: usual, eta, expires, cancelled.
    kinds: tuple[int, int, int, int]
    #: About so long after their submission those tasks expire that may.
    expires_s: float
    #: From the end of the burst until nodes fall silent; until those that come back early, late ones.
    silent_after_s: float
    early_s: float
    late_s: float
    heartbeat_interval_s: float
    heartbeat_timeout_s: float
    lease_s: float
    margin_s: float
    #: How long finished entries and decision records are kept.
    ttl_s: int
    #: Recorded events that stay in the stream.
    keep_events: int
    #: Between two looks at all reservations.
    audit_every_s: float
    #: A task may wait so long although an idle node could take it.
    idle_bound_s: float
    #: From the last submission until all must have ended.
    drain_s: float
    #: Growth of Redis's memory that is no leak, beside the stream: a fixed part, and of each submission. Bytes.
    growth_fixed: int
    growth_a_task: int


def full_plan(seed: int, nodes: int, jobs: int) -> Plan:
    """A thousand nodes and tens of thousands of tasks, in less than six minutes; `jobs` are those of the burst.

    Most of the burst may expire: two processes cannot play a thousand nodes that end hundreds of tasks a second.
    """
    return Plan(
        seed=seed, nodes=nodes, few=min(50, nodes), shards=2,
        first=300, steady=2600, burst=jobs, first_s=4.0, steady_s=30.0, work_s=20.0, expires_s=110.0,
        kinds=(29, 2, 66, 3), silent_after_s=8.0, early_s=14.0, late_s=32.0,
        heartbeat_interval_s=2.0, heartbeat_timeout_s=10.0, lease_s=20.0, margin_s=4.0,
        ttl_s=20, keep_events=20_000, audit_every_s=2.0, idle_bound_s=15.0, drain_s=270.0,
        growth_fixed=4 << 20, growth_a_task=64,
    )  # fmt: skip


def short_plan(seed: int, nodes: int, jobs: int) -> Plan:
    """The same in some seconds."""
    return Plan(
        seed=seed, nodes=nodes, few=min(20, nodes), shards=1,
        first=30, steady=100, burst=jobs, first_s=1.0, steady_s=1.0, work_s=0.7, expires_s=3.0,
        kinds=(70, 4, 20, 6), silent_after_s=0.1, early_s=1.8, late_s=3.6,
        heartbeat_interval_s=0.5, heartbeat_timeout_s=1.5, lease_s=2.5, margin_s=0.5,
        ttl_s=1, keep_events=1000, audit_every_s=0.2, idle_bound_s=30.0, drain_s=90.0,
        growth_fixed=2 << 20, growth_a_task=512,
    )  # fmt: skip


def settings_of(plan: Plan, url: str) -> Settings:
    """Of every process of the run."""
    return Settings.load(
        redis={"url": url},
        node={
            "heartbeat_interval_s": plan.heartbeat_interval_s, "heartbeat_timeout_s": plan.heartbeat_timeout_s,
            "lease_s": plan.lease_s, "lease_margin_s": plan.margin_s,
        },
        # A node that a busy machine makes seem dead costs an attempt, and must not cost the task.
        limits={"finished_ttl_s": plan.ttl_s, "max_attempts": 100},
        scheduling={"decision_ttl_s": plan.ttl_s},
    )  # fmt: skip


# --- the fleet


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """One of the unequal nodes."""

    name: str
    capacity: NodeCapacity
    labels: dict[str, str]
    #: Runtime over that of a node of speed 1, by task type; missing: 1.
    slowness: dict[str, float]
    #: Load beside our tasks, 0..1.
    pressure: float


_TYPES = ("cpu-light", "cpu-heavy", "memory-heavy", "gpu-inference", "gpu-training", "mixed")


def draw_fleet(plan: Plan) -> list[DrawnNode]:
    """All nodes of a run."""
    chance = random.Random(f"fleet {plan.seed}")
    drawn = []
    for i in range(plan.nodes):
        cores = chance.choice((4, 8, 8, 16, 32))
        own = chance.uniform(0.6, 1.6)
        drawn.append(
            DrawnNode(
                f"node-{i:05d}",
                NodeCapacity(
                    cpu_milli=cores * 1000,
                    memory_kib=cores * chance.choice((2, 4, 8)) * _GIB,
                    # Some of each device in every fleet, however small.
                    gpus=4 if i % 20 == 7 else chance.choice((0, 0, 0, 1, 2)),
                    storage_kib=chance.choice((100, 500, 2000)) * _GIB,
                    slots=chance.choice((1, 2, 2, 3, 4)),
                ),
                {"zone": "abc"[i % 3], "containers": "yes"},
                {kind: round(own * chance.lognormvariate(0, 0.25), 3) for kind in _TYPES},
                round(chance.uniform(0.05, 0.6), 3),
            )
        )
    return drawn


@dataclass(frozen=True, slots=True)
class Loss:
    """What becomes of which nodes in the loss phase; their places in the fleet."""

    #: Down for good; back as a new incarnation within the lease; back after it.
    gone: list[int]
    early: list[int]
    late: list[int]
    #: Cut off past the lease, and back as the same incarnation with its jobs.
    cut: list[int]
    #: Drained and taken back; drained and signed off.
    drained: list[int]
    leaving: list[int]

    def silent(self) -> list[int]:
        """Those that fall silent at once."""
        return self.gone + self.early + self.late + self.cut


def draw_loss(plan: Plan) -> Loss:
    """A tenth of the fleet falls silent, a twentieth is drained."""
    chance = random.Random(f"loss {plan.seed}")
    tenth, some = max(4, plan.nodes // 10), max(1, plan.nodes // 40)
    places = chance.sample(range(plan.nodes), tenth + 2 * some)
    silent = places[:tenth]
    return Loss(
        gone=silent[0::4], early=silent[1::4], late=silent[2::4], cut=silent[3::4],
        drained=places[tenth : tenth + some], leaving=places[tenth + some :],
    )  # fmt: skip


# --- the load


@dataclass(frozen=True, slots=True)
class Job:
    """A submission."""

    #: Work on a node of speed 1, seconds.
    work_s: float
    resources: dict[str, float]
    constraints: dict[str, str]
    #: From now; None: k * tau.
    deadline_s: float | None
    #: `usual`, `eta`, `expires`, `cancelled`, or `never`: no node can hold it.
    kind: str
    priority: int = 0
    family: str | None = None
    #: Of `eta` and `expires`, from now.
    after_s: float = 0.0


def shapes() -> Iterator[tuple[dict[str, float], dict[str, str]]]:
    """The shapes of requests; each is held by many nodes of any fleet."""
    for cpu in (0.25, 0.5, 1.0, 2.0, 4.0):
        for memory in (0.25, 1.0, 4.0):
            yield {"cpu": cpu, "memory": memory}, {}
            yield {"cpu": cpu, "memory": memory}, {"zone": "a"}
    for memory in (10.0, 16.0):
        yield {"cpu": 1.0, "memory": memory}, {}
    for gpu in (0.25, 0.5, 1.0, 2.0, 3.0):
        yield {"cpu": 1.0, "memory": 1.0, "gpu": gpu}, {}
    yield {"cpu": 8.0, "memory": 2.0}, {}
    yield {"cpu": 16.0, "memory": 2.0}, {"zone": "b"}
    yield {"cpu": 1.0, "memory": 1.0, "storage": 200.0}, {}


_SHAPES = tuple(shapes())
#: How often each is asked for: what few nodes have, seldom.
_OFTEN = [
    0.05 if asked.get("gpu", 0) >= 2 or asked["cpu"] >= 8 else 0.3 if "gpu" in asked or asked["memory"] > 8 else 1.0
    for asked, _ in _SHAPES
]


def draw_jobs(plan: Plan, phase: str, count: int) -> Iterator[Job]:
    """The submissions of a phase: `first`, `steady` or `burst`."""
    chance = random.Random(f"{phase} {plan.seed}")
    never = {i * count // 10 for i in range(10)} if phase == "burst" else set()
    for i in range(count):
        asked, constraints = chance.choices(_SHAPES, _OFTEN)[0]
        work_s = 0.5 if phase == "first" else plan.work_s * chance.choice((0.4, 0.7, 1.0, 1.3, 1.6))
        if phase != "burst":
            yield Job(work_s, asked, constraints, None, "usual")
            continue
        kind = chance.choices(("usual", "eta", "expires", "cancelled"), plan.kinds)[0]
        if i in never:
            kind, asked = "never", {"cpu": 512.0, "memory": 1.0}
        deadline_s = chance.choices((None, chance.uniform(1, 4), chance.uniform(20, 300)), (80, 8, 12))[0]
        yield Job(
            work_s, asked, constraints, deadline_s, kind,
            priority=chance.choice((0, 0, 0, 3, 9)),
            family=chance.choice((None, None, "render", "train", "encode")),
            after_s=chance.uniform(0.6, 1.2) * (plan.late_s if kind == "eta" else plan.expires_s),
        )  # fmt: skip


def to_options(job: Job) -> dict[str, Any]:
    """A job as `apply_async` takes it, but for what counts from now."""
    options: dict[str, Any] = {"resources": job.resources}
    if job.constraints:
        options["constraints"] = job.constraints
    if job.priority:
        options["priority"] = job.priority
    if job.family:
        options["family"] = job.family
    return options
