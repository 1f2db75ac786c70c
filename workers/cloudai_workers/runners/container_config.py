"""What the engine is told about a job's container: hard limits and safe defaults, whatever the job asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudai.containers.arguments import Volume
from cloudai_workers.runners.base import Job
from cloudai_workers.runners.labels import ATTEMPT_LABEL, NAMESPACE_LABEL, NODE_LABEL, TASK_LABEL
from cloudai_workers.runners.policy import Admitted

#: Log files per container: while one is written the previous one stays, so that a tail is never empty.
LOG_FILES = 2
#: The engine's smallest cpu limit, in thousandths of a core: a period's quota below 1 ms is refused by the
#: kernel.
MIN_CPU_MILLI = 10


def container_config(
    job: Job,
    admitted: Admitted,
    namespace: str,
    engine_cores: int,
    cgroup_parent: str | None,
    artefacts: Sequence[Volume] = (),
) -> dict[str, Any]:
    """The body of the engine's create call.

    Args:
        job: what to run.
        admitted: the job's volumes and environment as the node resolved them.
        namespace: the fleet's name, for the label.
        engine_cores: the machine's cores; the engine refuses a higher limit, which a node that declares more
            would ask.
        cgroup_parent: group in which the engine puts the container's own, or None for the engine's choice.
        artefacts: folders of its inputs and outputs.

    """
    reservation, limits = job.reservation, job.limits
    memory = reservation.memory_kib * 1024
    cpu_milli = max(MIN_CPU_MILLI, reservation.cpu_milli)
    if engine_cores:
        cpu_milli = min(cpu_milli, engine_cores * 1000)
    host: dict[str, Any] = {
        "NanoCpus": cpu_milli * 1_000_000,
        "Memory": memory,
        "MemorySwap": memory,
        "PidsLimit": limits.pids,
        "SecurityOpt": ["no-new-privileges"],
        "CapDrop": ["ALL"],
        "NetworkMode": job.spec.network,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(limits.log_bytes // LOG_FILES), "max-file": str(LOG_FILES)},
        },
        # Mounts, not Binds: a bind whose host path is missing would be created, as root.
        "Mounts": [
            {"Type": "bind", "Source": v.host, "Target": v.bind, "ReadOnly": v.mode == "ro"}
            for v in (*admitted.volumes, *artefacts)
        ],
    }
    if cgroup_parent is not None:
        host["CgroupParent"] = cgroup_parent
    if reservation.gpu_devices:
        host["DeviceRequests"] = [
            {"Driver": "", "Count": 0, "DeviceIDs": list(reservation.gpu_devices), "Capabilities": [["gpu"]]}
        ]
    config: dict[str, Any] = {
        "Image": job.spec.image,
        "Env": [f"{name}={value}" for name, value in admitted.env],
        "Labels": {
            TASK_LABEL: job.task_id,
            ATTEMPT_LABEL: str(job.attempt),
            NODE_LABEL: job.node,
            NAMESPACE_LABEL: namespace,
        },
        "Tty": False,
        "OpenStdin": False,
        # A health check of the image's would run beside the job, on the job's share.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
    }
    if job.spec.command is not None:
        config["Cmd"] = list(job.spec.command)
    if job.spec.workdir is not None:
        config["WorkingDir"] = job.spec.workdir
    if job.spec.user is not None:
        config["User"] = job.spec.user
    return config
