"""What deploys it: Compose, Dockerfiles, service units name what exists and keep what the documents promise."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudai.settings import Settings
from cloudai.settings.sources import variable_name

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILES = [ROOT / "workers/Dockerfile", ROOT / "beat/Dockerfile"]
UNITS = [ROOT / "workers/cloudai-node.service", ROOT / "beat/cloudai-control.service"]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def test_every_part_of_a_deployment_is_there(services: dict[str, Any]) -> None:
    assert set(services) == {"broker", "history", "node", "control", "flower"}


def test_every_service_has_a_health_check_and_comes_back(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name


def test_the_broker_keeps_what_was_accepted(services: dict[str, Any]) -> None:
    command = services["broker"]["command"]
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    # Else it refuses every other container, where the image does not say so itself.
    assert "--protected-mode no" in command
    assert any(volume.endswith(":/data") for volume in services["broker"]["volumes"])


def test_ports_are_open_on_this_machine_only(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} opens {port} to everyone"


def test_its_variables_are_settings(services: dict[str, Any]) -> None:
    known = {
        variable_name(section, key)
        for section, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    }
    for service in services.values():
        for variable in service.get("environment", {}):
            assert variable in known or not variable.startswith("CLOUDAI_"), f"{variable} is no setting"


def test_a_shell_that_submits_does_not_change_where_the_services_look(services: dict[str, Any]) -> None:
    """Whoever submits from outside has set the broker's address as seen from there."""
    for name in ("node", "control", "flower"):
        environment = services[name]["environment"]
        assert environment["CLOUDAI_REDIS__URL"].endswith(":-redis://broker:6379/0}")
        for variable in ("CLOUDAI_REDIS__URL", "CLOUDAI_OPTIMISER__MONGO_URL"):
            assert f"${{{variable}" not in environment[variable]


def test_compose_itself_accepts_it() -> None:
    """With the Compose of this machine; `docker-compose` is Debian's package of that name."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        compose = ["docker", "compose"]
    elif shutil.which("docker-compose"):
        compose = ["docker-compose"]
    else:
        pytest.skip("neither `docker compose` nor docker-compose is installed here")
    arguments = [*compose, "-f", str(COMPOSE), "config"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CLOUDAI_")}
    refused = subprocess.run(arguments, env=environment, capture_output=True, text=True, cwd="/")
    assert refused.returncode != 0
    assert "CLOUDAI_DOCKER_GROUP" in refused.stderr
    told = {**environment, "CLOUDAI_DOCKER_GROUP": "123"}
    done = subprocess.run(arguments, env=told, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"]["node"]["group_add"] in (["123"], [123])


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.parent.name)
def test_a_dockerfile_copies_what_exists_and_is_no_root(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignore
    assert re.search(r"^USER cloudai$", text, re.MULTILINE)
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+", text, re.MULTILINE)


def test_both_images_are_built_on_one_stage() -> None:
    """Word for word the same, so that an engine builds it once; the files stay apart, one for each folder."""
    workers, beat = (
        re.search(r"^FROM \S+ AS cloudai$.*?(?=^FROM )", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for path in DOCKERFILES
    )
    assert workers is not None
    assert beat is not None
    assert workers[0] == beat[0]


def test_flower_has_buttons_that_work_or_a_login(services: dict[str, Any]) -> None:
    """Without either its API answers 401, and so do its buttons. An unset login must not become an empty one."""
    environment = services["flower"]["environment"]
    assert environment["FLOWER_UNAUTHENTICATED_API"].endswith(":-true}")
    assert environment["FLOWER_BASIC_AUTH"] is None


@pytest.mark.parametrize("path", UNITS, ids=lambda p: p.stem)
def test_a_unit_starts_what_the_image_starts(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    program, _, arguments = unit["Service"]["ExecStart"].partition(" ")
    assert program.endswith("/celery")
    command = re.search(r"^CMD (\[.*\])$", (path.parent / "Dockerfile").read_text(), re.MULTILINE)
    assert command is not None
    started = " ".join(yaml.safe_load(command[1])[1:])
    assert arguments == started.replace("%h", "%H")


def test_a_guardian_outlives_its_worker() -> None:
    unit = (ROOT / "workers/cloudai-node.service").read_text(encoding="utf-8")
    assert "KillMode=process" in unit
