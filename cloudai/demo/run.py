"""The run of the demo: a burst above the cluster's capacity, then steady arrivals."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cloudai.app import CloudAI
from cloudai.demo.image import REPOSITORY, ensure_image
from cloudai.demo.jobs import DemoJob, make_wave, starts_and_ends, write_texts
from cloudai.demo.learning import PACE, Learned, learn, pace_of
from cloudai.demo.observer import Counts, JobTrace, Observer
from cloudai.demo.report import DemoReport, JobEvidence, judge
from cloudai.local_cluster import LocalCluster, LocalClusterError
from cloudai.local_nodes import DEFAULT_NODES, LocalNode, RunnerChoice
from cloudai.local_services import CONTROL, LocalServices
from cloudai.names import CONTAINER_TASK
from cloudai.scheduling.decision import read_record

#: How many times as long work takes on each node as on the fastest.
PACES = {"small": 2.5, "medium": 1.5, "large": 1.0}
NODES = tuple(replace(node, environment={PACE: str(PACES[node.name])}) for node in DEFAULT_NODES)

#: Jobs of both waves together, unless told otherwise.
JOBS = 132
#: Fewest jobs that hold all six types in each wave.
FEWEST_JOBS = 24

#: The second wave arrives at this share of the rate at which the first one was worked off.
_STEADY_SHARE = 0.8
#: The second wave has arrived after so long even where the first one was slow, seconds.
_STEADY_AT_MOST_S = 60.0
#: Every process uses new parameters within so long, seconds.
_RELOAD_S = 1.0
#: The control process must not run an epoch of its own beside the one between the waves.
_NEVER_S = 86_400.0
#: Time between two looks at the event stream, seconds.
_LOOK_EVERY_S = 0.1


class Show(Protocol):
    """Where the demo tells what it does."""

    def say(self, text: str) -> None:
        """A line."""

    def wave(self, title: str, jobs: int) -> None:
        """A wave of so many jobs begins."""

    def progress(self, ended: int, counts: Counts) -> None:
        """How far the wave is: so many of its jobs have ended."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo is asked to do."""

    jobs: int = JOBS
    nodes: Sequence[LocalNode] = NODES
    runner: RunnerChoice = "auto"
    #: Of the order and the contents of the jobs.
    seed: int = 1
    #: Seconds from the first submission after which what has not ended counts as lost.
    give_up_after_s: float = 160.0


def run_demo(options: DemoOptions, show: Show) -> DemoReport:
    """Run the demo and judge it. Everything that it starts has ended when it returns; its files are removed.

    Raises:
        LocalClusterError, EmbeddedServerError, ImageError: it cannot run here; the message says what to do.
    """
    with tempfile.TemporaryDirectory(prefix="cloudai-demo-") as folder:
        return _run_in(Path(folder).resolve(), options, show)


def _run_in(folder: Path, options: DemoOptions, show: Show) -> DemoReport:
    data, witnesses = folder / "texts", folder / "witnesses"
    witnesses.mkdir()
    cluster = LocalCluster(
        folder / "cluster",
        options.nodes,
        runner=options.runner,
        services=LocalServices(control=True),
        overrides={
            "scheduling": {"params_reload_interval_s": _RELOAD_S},
            "optimiser": {"epoch_interval_s": _NEVER_S},
            # Its own, so that another cluster's containers on this machine are never taken for the demo's.
            "redis": {"namespace": f"demo-{secrets.token_hex(4)}"},
            "node": {
                "volumes_allowlist": [f"{data}:ro", str(witnesses)],
                "images_allowlist": [f"{REPOSITORY}:*"],
                "secrets_allowlist": [f"env:{PACE}"],
            },
        },
    )
    show.say(runner_line(cluster))
    texts = write_texts(data)
    size_mb = texts.large.stat().st_size / 1e6
    show.say(f"Work: {len(texts.parts)} texts of Python source, and all of them in one of {size_mb:.0f} MB.")
    image = f"{REPOSITORY}:process"
    if cluster.runner == "docker":
        image = ensure_image(cluster.docker_url)
        show.say(f"Image: {image}, made from programs of this machine.")
    first = options.jobs // 2
    waves = [
        make_wave(1, first, texts, options.seed),
        make_wave(2, options.jobs - first, texts, options.seed),
    ]
    with cluster:
        for node in options.nodes:
            show.say(f"Node: {node_line(node)}.")
        return _Run(cluster, options, show, image, data, witnesses).of(*waves)


class _Run:
    """One run against a cluster that is up."""

    def __init__(
        self, cluster: LocalCluster, options: DemoOptions, show: Show, image: str, data: Path, witnesses: Path
    ) -> None:
        self._cluster = cluster
        self._options = options
        self._show = show
        self._image = image
        self._data = data
        self._witnesses = witnesses
        self._app = CloudAI("cloudai-demo", settings=cluster.settings, set_as_current=False)
        self._observer = Observer(cluster.deployment)
        #: Task id -> job.
        self._submitted: dict[str, DemoJob] = {}
        self._give_up_at = 0.0

    def of(self, burst: Sequence[DemoJob], steady: Sequence[DemoJob]) -> DemoReport:
        """Both waves, and the verdict."""
        tau_before = self._cluster.deployment.tau.read()
        began = time.monotonic()
        self._give_up_at = began + self._options.give_up_after_s
        try:
            self._show.wave("Wave 1, all at once", len(burst))
            self._work_off(burst, every_s=0.0)
            worked_off_in_s = time.monotonic() - began
            learned = self._learn()
            every_s = min(worked_off_in_s / len(burst) / _STEADY_SHARE, _STEADY_AT_MOST_S / len(steady))
            self._show.wave(f"Wave 2, one every {every_s:.2f} s", len(steady))
            self._work_off(steady, every_s=every_s)
            duration_s = time.monotonic() - began
            return judge(
                self._evidence(),
                runner=self._cluster.runner,
                nodes=[node.full_name for node in self._options.nodes],
                tau_before=tau_before,
                tau_after=self._cluster.deployment.tau.read(),
                duration_s=duration_s,
                learned=learned,
                paces={node.full_name: pace_of(node) for node in self._options.nodes},
            )
        finally:
            self._app.close()

    def _learn(self) -> Learned | None:
        """The epoch between the waves; None where no control process can run here."""
        problem = self._cluster.services.left_out.get(CONTROL)
        if problem is not None:
            self._show.say(f"No epoch between the waves: {problem}")
            return None
        self._show.say("Epoch: the control process learns from the first wave.")
        learned = learn(self._app, self._check_cluster)
        if learned.changes:
            # Nodes place waiting jobs too: let them all read what is new.
            time.sleep(_RELOAD_S)
        self._show.say(f"Epoch: {learned.missing or learned.report['reason']}.")
        return learned

    def _check_cluster(self) -> None:
        ended = self._cluster.ended()
        if ended:
            raise LocalClusterError("\n".join(ended))

    def _work_off(self, jobs: Sequence[DemoJob], *, every_s: float) -> None:
        """Submit the jobs, one every so many seconds; wait until all have ended or it is time to give up."""
        before = len(self._submitted)
        began = time.monotonic()
        left = list(jobs)
        while True:
            due = len(jobs) if every_s == 0 else 1 + int((time.monotonic() - began) / every_s)
            while left and len(jobs) - len(left) < due:
                self._submit(left.pop(0))
            self._observer.look()
            counts = self._observer.counts()
            self._show.progress(counts.ended - before, counts)
            if not left and counts.ended >= len(self._submitted):
                return
            if time.monotonic() >= self._give_up_at:
                self._show.say(f"Given up after {self._options.give_up_after_s:.0f} s, {len(left)} jobs not submitted.")
                return
            self._check_cluster()
            time.sleep(_LOOK_EVERY_S)

    def _submit(self, job: DemoJob) -> None:
        kwargs: dict[str, Any] = {
            "image": self._image,
            "command": job.command,
            "env": {"WITNESS": str(self._witnesses / job.key), "LC_ALL": "C"},
            "timeout": 60,
            "pull": "never",
            # Not a secret, but read on the node that runs the job.
            "secrets": {"PACE": f"env:{PACE}"},
        }
        if self._cluster.runner == "docker":
            # The same paths inside as outside, so that a job is the same under both runners.
            kwargs["volumes"] = {
                str(self._data): {"bind": str(self._data), "mode": "ro"},
                str(self._witnesses): {"bind": str(self._witnesses), "mode": "rw"},
            }
            # Without capabilities even root cannot write into another user's folder.
            kwargs["user"] = f"{os.getuid()}:{os.getgid()}"
        answer = self._app.tasks[CONTAINER_TASK].apply_async(kwargs=kwargs, **job.options)
        self._submitted[answer.id] = job

    def _evidence(self) -> list[JobEvidence]:
        return [self._evidence_of(task_id, job) for task_id, job in self._submitted.items()]

    def _evidence_of(self, task_id: str, job: DemoJob) -> JobEvidence:
        starts, ends = starts_and_ends(self._witnesses / job.key)
        meta = self._app.backend.get_task_meta(task_id)
        record = self._cluster.deployment.ledger.decision(task_id)
        return JobEvidence(
            key=job.key,
            task_id=task_id,
            wave=job.wave,
            task_type=job.task_type,
            work=job.work,
            trace=self._observer.traces.get(task_id, JobTrace()),
            starts=starts,
            ends=ends,
            result=str(meta["status"]),
            problem="" if meta["status"] == "SUCCESS" else str(meta.get("result") or ""),
            decision=None if record is None else read_record(record),
        )


def runner_line(cluster: LocalCluster) -> str:
    """Which runner there is, and why, to be said aloud."""
    if cluster.runner == "docker":
        return "Runner: Docker. Every job runs in a container of its own."
    reason = "as asked"
    if cluster.asked_runner == "auto":
        reason = f"because no container engine answers ({cluster.engine_problem})"
    return f"Runner: local processes, {reason}. Jobs run WITHOUT isolation, as the user who started this."


def node_line(node: LocalNode) -> str:
    """A node's name and what it declares."""
    gpus = f", {node.gpus} GPUs (declared)" if node.gpus else ""
    pace = f", work takes {pace_of(node):g} times as long (declared)" if pace_of(node) != 1 else ""
    cores = "1 core" if node.cpu == 1 else f"{node.cpu:g} cores"
    return f"{node.full_name}: {cores}, {node.memory:g} GiB{gpus}, {node.slots} slots{pace}"
