"""What the guardian can do to containers, against a real engine, with nothing but the standard library."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import cloudai_workers
from cloudai_workers.guarded_jobs import Containers, GuardedJob

NAMESPACE = f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def container(engine, image) -> Iterator[str]:
    name = f"cloudai-{uuid.uuid4()}-1"
    labels = {"cloudai.namespace": NAMESPACE, "cloudai.node": "n@h"}
    config = {"Image": image, "Cmd": ["sleep", "600"], "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
    made = engine.create_container_from_config(config, name)["Id"]
    engine.start(made)
    yield name
    with contextlib.suppress(Exception):
        engine.remove_container(made, force=True)


@pytest.mark.docker
def test_containers_are_found_by_their_labels_paused_and_ended(engine, container) -> None:
    jobs = Containers("", NAMESPACE, "n@h")
    assert Containers("", NAMESPACE, "other@h").found() == []
    assert jobs.found() == [GuardedJob(container, True)]
    jobs.pause(jobs.found()[0])
    assert engine.inspect_container(container)["State"]["Status"] == "paused"
    assert jobs.found() == [GuardedJob(container, False)]
    jobs.pause(jobs.found()[0])
    jobs.end(jobs.found()[0])
    assert jobs.found() == []
    jobs.pause(GuardedJob(container, True))
    jobs.end(GuardedJob(container, True))


def test_an_engine_that_is_away_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Containers(f"unix://{tmp_path}/nowhere.sock", NAMESPACE, "n@h").found()
    with pytest.raises(ValueError, match="ssh"):
        Containers("ssh://host", NAMESPACE, "n@h").found()


def test_the_guardian_needs_the_standard_library_alone() -> None:
    packages = str(Path(cloudai_workers.__file__).parents[1])
    program = (
        "import sys; sys.path.append(sys.argv[1]); import cloudai_workers.guardian; "
        "print(*sorted(name for name in sys.modules if name.split('.')[0] in ('cloudai', 'celery', 'docker', 'redis')))"
    )
    asked = [sys.executable, "-I", "-S", "-c", program, packages]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == ""
