"""Which runner a node uses: what its operator configured, never another one silently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudai_workers.pause_notes import PauseNotes
from cloudai_workers.runners.base import Runner
from cloudai_workers.runners.docker_runner import DockerRunner
from cloudai_workers.runners.kept_logs import KeptLogs
from cloudai_workers.runners.policy import NodePolicy
from cloudai_workers.runners.process_runner import ProcessRunner


def make_runner(
    settings: Any, node: str, namespace: str, work_dir: Path, still_ours: Callable[[], bool]
) -> Runner:
    """The runner of `node.runner`, with the operator's allowlists."""
    policy = NodePolicy(
        volumes=tuple(settings.volumes_allowlist),
        stores=tuple(settings.stores_allowlist),
        networks=tuple(settings.networks_allowlist),
        images=tuple(settings.images_allowlist),
        images_pinned=settings.images_pinned,
        secrets=tuple(settings.secrets_allowlist),
    )
    kept = None
    if settings.log_dir:
        kept = KeptLogs(
            Path(settings.log_dir), keep_days=settings.log_keep_days, keep_bytes=int(settings.log_keep * (1 << 30))
        )
    notes = PauseNotes(work_dir)
    if settings.runner == "process":
        return ProcessRunner(
            node=node, work_dir=work_dir, namespace=namespace, policy=policy, kept_logs=kept, notes=notes,
            still_ours=still_ours,
        )  # fmt: skip
    return DockerRunner(
        node=node, namespace=namespace, url=settings.docker_url, policy=policy, kept_logs=kept, notes=notes,
        work_dir=work_dir, still_ours=still_ours,
    )  # fmt: skip
