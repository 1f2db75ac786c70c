"""The settings, section by section: each one typed, bounded and described.

Docstrings and descriptions are what a user reads: docs/configuration.md and the commented default file are
made of them. Units are in the names: `_s` seconds, `_h` hours, `_kib` KiB.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from cloudai.settings.values import (
    DatabaseName,
    DockerUrl,
    Gib,
    Labels,
    MongoUrl,
    Multiplier,
    MultiplierTable,
    Namespace,
    NodeName,
    Rate,
    RateTable,
    RedisUrl,
    ResultUrl,
    SchedulerName,
    TextList,
)


def refuse(problems: list[tuple[str, Any, str]]) -> None:
    """Raise one pydantic error for (key, given, allowed) triples that several settings together break."""
    if problems:
        raise PydanticCustomError(
            "cross_check", "settings that contradict each other", {"problems": problems}
        )


class Section(BaseModel):
    """What all sections share: values are fixed once read, unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise PydanticCustomError("truth_value", "a truth value in place of a number or text")
        return value


class RedisSettings(Section):
    """The one Redis (or Valkey) server that is both the broker and the live state."""

    url: RedisUrl = Field(
        "redis://localhost:6379/0", description="Server and database of broker and live state."
    )
    sentinel_master: str = Field(
        "",
        description="Name of the master that the Sentinels watch. Needed with a `sentinel://` URL, "
        "which may name several, apart by semicolons.",
    )
    result_url: ResultUrl = Field(
        "", description="Where Celery stores results. Empty: the same server and database as `url`."
    )
    namespace: Namespace = Field(
        "cloudai",
        description="Name of the deployment, part of every key; two deployments may share one server.",
    )
    durability: Literal["relaxed", "strict"] = Field(
        "relaxed",
        description="`strict`: a submission returns only after its record is on disk (WAITAOF). "
        "`relaxed`: a crash of the server may lose the last second of submissions.",
    )

    @model_validator(mode="after")
    def _sentinels_watch_a_master(self) -> Self:
        if self.url.startswith("sentinel://") and not self.sentinel_master:
            refuse([("sentinel_master", "", "the name of the master that the Sentinels of `url` watch")])
        return self


class SchedulingSettings(Section):
    """How a node is chosen for a task, and by when a task is to be done."""

    scheduler: SchedulerName = Field("rts", description="Which scheduler decides.")
    rts_enabled: bool = Field(
        True, description="False: Round-Robin decides everything, whatever `scheduler` says."
    )
    rollout_percent: float = Field(
        100.0,
        ge=0,
        le=100,
        description="Share of the tasks that `scheduler` decides, per cent, stable by task id.",
    )
    explore_percent: float = Field(
        1.0,
        ge=0,
        le=10,
        description="Share of the tasks, per cent, that may try a node which little is known of, where they are "
        "expected to make their deadline all the same.",
    )
    sla_multiplier: Multiplier = Field(
        2.0, description="k: a task's deadline is its arrival plus k times the expected runtime of its type."
    )
    sla_multiplier_by_type: MultiplierTable = Field(
        default_factory=dict, description="k of single task types, in place of `sla_multiplier`."
    )
    staleness_s: float = Field(
        10.0, gt=0, le=3600, description="A node whose telemetry is older than this gets no new task."
    )
    candidates: int = Field(
        5,
        ge=1,
        le=5,
        description="How many of the best nodes a submission carries, should the first be taken.",
    )
    params_reload_interval_s: float = Field(
        30.0, gt=0, le=3600, description="How soon every process uses parameters that were changed."
    )
    fallback_alert: float = Field(
        0.10,
        gt=0,
        le=1,
        description="Share of decisions that fell back to Round-Robin which raises an alert.",
    )
    fallback_limit: float = Field(
        0.30,
        gt=0,
        le=1,
        description="Share of fallbacks at which Round-Robin takes over until the cause is gone.",
    )
    starvation_after_s: float = Field(
        60.0, gt=0, le=86_400, description="A task that waited this long gets a node held for it."
    )
    decision_ttl_s: int = Field(
        3600,
        ge=1,
        le=2_592_000,
        description="How long the record of a placement decision is kept for `explain`.",
    )

    @model_validator(mode="after")
    def _alert_before_limit(self) -> Self:
        if self.fallback_alert >= self.fallback_limit:
            refuse(
                [
                    (
                        "fallback_alert",
                        self.fallback_alert,
                        f"less than fallback_limit ({self.fallback_limit:g})",
                    )
                ]
            )
        return self


class LearningSettings(Section):
    """How the expected runtime of task types and families (tau) follows what was measured."""

    rate: Rate = Field(0.2, description="Weight of one completion: tau = rate * runtime + (1 - rate) * tau.")
    rate_by_type: RateTable = Field(
        default_factory=dict, description="The weight for single task types, in place of `rate`."
    )
    adaptive: bool = Field(
        False, description="True: a completion of a type whose runtimes vary much weighs less, to a quarter."
    )
    outlier_sigma: float = Field(
        3.0, gt=0, le=1000, description="A runtime further than so many sigma from tau is not learned from."
    )
    outlier_after: int = Field(
        20, ge=2, le=1_000_000, description="Completions of a type or family before its outliers are told apart."
    )
    follow_after: int = Field(
        5, ge=1, le=1000, description="So many outliers in a row on one side are a lasting shift: it is followed."
    )
    family_after: int = Field(
        3, ge=1, le=1_000_000, description="Completions from which on a family's own runtime is used."
    )
    max_families: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Families whose runtime is kept; more push out those that were learned longest ago.",
    )


class LimitSettings(Section):
    """What one task may take, and how much is kept of all of them."""

    default_cpu: float = Field(
        1.0, gt=0, le=1e6, description="Cores of a task that names none: its reservation and its limit."
    )
    default_memory: Gib = Field(
        "512MiB",  # type: ignore[assignment]  # read into GiB by the type
        description="Memory of a task that names none: its reservation and its limit. A number is in GiB.",
    )
    max_arguments_kib: int = Field(
        64, ge=1, le=16_384, description="Largest size of a task's arguments, KiB."
    )
    max_in_flight: int = Field(
        100_000, ge=1, le=100_000_000, description="Unfinished tasks at which new submissions are refused."
    )
    tail_kib: int = Field(
        8, ge=0, le=1024, description="How much of the end of each output goes into a result, KiB."
    )
    finished_ttl_s: int = Field(
        3600, ge=1, le=2_592_000, description="How long the ledger's entry of a finished task is kept."
    )
    events_maxlen: int = Field(
        1_000_000,
        ge=1000,
        le=1_000_000_000,
        description="Events kept in the stream when no recorder reads it.",
    )
    max_attempts: int = Field(
        3, ge=1, le=100, description="How often a task may be started anew after its node was lost."
    )


class NodeSettings(Section):
    """One machine that runs tasks. Read by the node only."""

    name: NodeName = Field("", description="Name of the node, unique in the fleet. Empty: the host's name.")
    cpu: float | None = Field(
        None, gt=0, le=1e6, examples=[8.0], description="Cores that tasks may use. Not set: detected."
    )
    memory: Gib | None = Field(
        None,
        examples=["16GiB"],
        description="Memory that tasks may use. A number is in GiB. Not set: detected.",
    )
    storage: Gib | None = Field(
        None,
        examples=["100GiB"],
        description="Disk that tasks may use. A number is in GiB. Not set: detected.",
    )
    gpus: int | None = Field(
        None, ge=0, le=1024, examples=[0], description="GPU devices that tasks may use. Not set: detected."
    )
    labels: Labels = Field(
        default_factory=dict,
        description="What a task's constraints are matched with, for instance zone or GPU model.",
    )
    slots: int = Field(
        0, ge=0, le=100_000, description="Tasks that run at once at most. 0: as many as cores."
    )
    heartbeat_interval_s: float = Field(
        2.0, gt=0, le=600, description="How often the node reports use and load."
    )
    heartbeat_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Silence after which a node gets nothing new and loses what it has not begun.",
    )
    lease_s: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="Silence after which a node is lost and its tasks are started elsewhere.",
    )
    lease_margin_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="How long after a node's lease its running tasks are placed elsewhere.",
    )
    on_disconnect: Literal["pause", "keep"] = Field(
        "pause",
        description="What a node does with its container jobs when it cannot renew its lease. `pause`: they wait until "
        "Redis answers again. `keep`: they go on, and may run twice at once; one completion counts.",
    )
    runner: Literal["docker", "process"] = Field(
        "docker",
        description="What runs a container job. `process` runs the command on the host, without isolation.",
    )
    docker_url: DockerUrl = Field(
        "", description="The engine's address. Empty: DOCKER_HOST, else the engine's default socket."
    )
    volumes_allowlist: TextList = Field((), description="Host folders that a job may mount. Empty: none.")
    stores_allowlist: TextList = Field(
        (),
        description='URLs of jobs\' inputs and outputs, such as "file:///srv/cloudai/*" or "s3://team-*". Empty: none.',
    )
    networks_allowlist: TextList = Field(
        (), description="Docker networks that a job may join, besides `none` and `bridge`."
    )
    images_allowlist: TextList = Field(
        (), description="Images that a job may run, `*` matches any text. Empty: every image."
    )
    images_pinned: bool = Field(
        False, description="Only images named by their digest (`name@sha256:...`) may run, since a tag can be moved."
    )
    secrets_allowlist: TextList = Field(
        (), description='Secrets a job may name, such as "env:JOB_*" or "file:/etc/secrets/*". Empty: none.'
    )
    work_dir: str = Field(
        "",
        description="Folder of the jobs' files and the node's state. Empty: the platform's state folder.",
    )
    log_dir: str = Field(
        "", description="Folder that keeps the full output of every job. Empty: it is not kept."
    )
    log_keep_days: float = Field(
        30.0, gt=0, le=3650, description="How long a job's output is kept in `log_dir`, days."
    )
    log_keep: Gib = Field(
        "10GiB",  # type: ignore[assignment]  # read into GiB by the type
        description="Size of `log_dir` above which the oldest outputs go. A number is in GiB.",
    )

    @model_validator(mode="after")
    def _timers_in_order(self) -> Self:
        problems: list[tuple[str, Any, str]] = []
        if self.heartbeat_timeout_s <= self.heartbeat_interval_s:
            bound = f"more than heartbeat_interval_s ({self.heartbeat_interval_s:g})"
            problems.append(("heartbeat_timeout_s", self.heartbeat_timeout_s, bound))
        if self.lease_s <= self.heartbeat_timeout_s:
            bound = f"more than heartbeat_timeout_s ({self.heartbeat_timeout_s:g})"
            problems.append(("lease_s", self.lease_s, bound))
        if self.lease_margin_s >= self.lease_s:
            problems.append(("lease_margin_s", self.lease_margin_s, f"less than lease_s ({self.lease_s:g})"))
        refuse(problems)
        return self


class OptimiserSettings(Section):
    """The optimisation epoch of the control process, and the history that it reads."""

    enabled: bool = Field(True, description="False: the parameters in force stay as they are.")
    epoch_interval_s: float = Field(60.0, ge=1, le=86_400, description="Time between two epochs.")
    population_size: int = Field(20, ge=4, le=1000, description="Candidates in one generation of the search.")
    generations: int = Field(10, ge=1, le=1000, description="Generations of one search.")
    mutation_rate: float = Field(0.1, ge=0, le=1, description="Chance that a gene is changed.")
    crossover_rate: float = Field(0.7, ge=0, le=1, description="Chance that two candidates are crossed.")
    weight_sla: float = Field(
        0.55,
        gt=0,
        le=1,
        description="Of the four weights, by which the search judges candidates, that of the share of deadlines met. "
        "Only their proportions count.",
    )
    weight_utilisation: float = Field(
        0.2, ge=0, le=1, description="Weight of how much of the nodes is used; more is better."
    )
    weight_energy: float = Field(0.125, ge=0, le=1, description="Weight of the energy used; less is better.")
    weight_overload: float = Field(
        0.125, ge=0, le=1, description="Weight of the load above 1 that nodes bear; less is better."
    )
    window_h: float = Field(
        24.0, gt=0, le=8760, description="How far back an epoch reads the history, hours."
    )
    max_records: int = Field(
        10_000, ge=100, le=1_000_000, description="History records that an epoch reads at most."
    )
    mongo_url: MongoUrl = Field("mongodb://localhost:27017", description="Server that holds the history.")
    database: DatabaseName = Field(
        "cloudai", description="Database that holds the history; every deployment needs one of its own."
    )
    history_days: float = Field(
        30.0, gt=0, le=3650, description="How long the history is kept, days."
    )
    state_dir: str = Field(
        "",
        description="Folder of the control process: ga_output.json and beat's schedule. Empty: the platform's state "
        "folder.",
    )
