"""A real engine, a small image made of busybox, and both runners behind one fixture."""

import contextlib
import importlib.util
import io
import os
import shutil
import tarfile
import uuid
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException, NotFound

from cloudai.containers import validate_container
from cloudai_workers.runners.base import Job, Reservation, StopHandle
from cloudai_workers.runners.docker_runner import DockerRunner
from cloudai_workers.runners.kept_logs import KeptLogs
from cloudai_workers.runners.process_runner import ProcessRunner

IMAGE = "cloudai/busybox:test"
NODE = "runner-test"
APPLETS = "cat dd echo env false head id ls printf pwd sh sleep touch true yes"


def busybox_tar(busybox: str) -> bytes:
    """A root file system with nothing but busybox and a few names for it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in APPLETS.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name, mode in (("tmp", 0o1777), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755), ("etc", 0o755)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
    return packed.getvalue()


def unavailable(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"CI must have it: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine():
    try:
        client = docker.APIClient(version="auto", timeout=60)
        client.ping()
    except (DockerException, OSError) as error:
        unavailable(f"no Docker engine answers: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine):
    busybox = shutil.which("busybox")
    if busybox is None:
        unavailable("busybox is not installed (Debian: busybox-static)")
    repository, tag = IMAGE.split(":")
    engine.import_image_from_data(busybox_tar(busybox), repository=repository, tag=tag)
    return IMAGE


@pytest.fixture
def docker_runner(engine, image, tmp_path, task_id):
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    with contextlib.closing(
        DockerRunner(node=NODE, namespace=namespace, kept_logs=KeptLogs(tmp_path / "logs"))
    ) as runner:
        yield runner
    left = engine.containers(all=True, filters={"label": f"cloudai.namespace={namespace}"})
    for container in left:
        engine.remove_container(container["Id"], force=True)
    assert not left, f"containers left behind: {left}"
    assert not job_groups(task_id)


@pytest.fixture
def process_runner(tmp_path, task_id):
    yield ProcessRunner(node=NODE, work_dir=tmp_path, kept_logs=KeptLogs(tmp_path / "logs"))
    processes = tmp_path / "processes"
    assert not processes.exists() or not list(processes.iterdir()), "job folders left behind"
    assert not job_groups(task_id)
    assert not [pid for pid in live_pids() if str(tmp_path).encode() in environment(pid)], (
        "processes left behind"
    )


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "process"])
def runner(request):
    return request.getfixturevalue(f"{request.param}_runner")


@pytest.fixture
def task_id():
    return str(uuid.uuid4())


@pytest.fixture
def make_job(task_id):
    def make(command, *, cpu_milli=1000, memory_mib=64, attempt=1, limits=None, **spec):
        spec = {"image": IMAGE, "pull": "never", **spec}
        return Job(
            task_id=task_id,
            attempt=attempt,
            node=NODE,
            spec=validate_container(command=command, **spec),
            reservation=Reservation(cpu_milli, memory_mib * 1024),
            waiting_s=0.25,
            **({"limits": limits} if limits else {}),
        )

    return make


@pytest.fixture
def control():
    return StopHandle()


def job_groups(task_id: str) -> set[Path]:
    """Control groups of this task's runs; those of other clusters on the machine are not ours to judge."""
    return {
        path
        for pattern in ("*/cloudai/cloudai-*", "cloudai/cloudai-*")
        for path in Path("/sys/fs/cgroup").glob(pattern)
        if task_id in path.name
    }


def live_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def container_exists(engine, name: str) -> bool:
    try:
        engine.inspect_container(name)
    except NotFound:
        return False
    return True


@pytest.fixture
def registry(engine, image):
    spec = importlib.util.spec_from_file_location(
        "runner_test_registry", Path(__file__).with_name("registry.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    serving = module.Registry(busybox_tar(shutil.which("busybox")))
    yield serving
    serving.close()
    for pulled in engine.images(filters={"reference": f"{serving.address}/*/*"}):
        for tag in pulled["RepoTags"]:
            engine.remove_image(tag, force=True)
