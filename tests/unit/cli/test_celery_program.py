"""What Celery's own program tells of a configuration that is refused: one message, exit code 2, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery.bin.celery import celery
from click.testing import CliRunner

from cloudai.cli import cloudai

TOLD = (
    "configuration refused: CLOUDAI_REDIS__URL: redis.url: given 'foo', allowed: a URL that starts with redis://, "
    "rediss:// or sentinel://"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Celery imports a project from, with a wrong setting in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CLOUDAI_REDIS__URL", "foo")
    return tmp_path


@pytest.mark.parametrize("command", ["worker --node", "beat", "flower", "inspect ping", "cloudai nodes"])
def test_a_wrong_setting_of_a_project_is_one_line(project: Path, command: str) -> None:
    (project / "wrong_setting.py").write_text("from cloudai import CloudAI\napp = CloudAI('shop')\n")
    done = CliRunner().invoke(celery, ["-A", "wrong_setting", *command.split()])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"Error: {TOLD}\n")


def test_settings_that_a_project_gives_in_code_too(project: Path) -> None:
    (project / "wrong_code.py").write_text(
        "from cloudai import CloudAI\nfrom cloudai.settings import Settings\n"
        "app = CloudAI('shop', settings=Settings.load(redis={'url': 'redis://a', 'namespace': 'a b'}))\n"
    )
    done = CliRunner().invoke(celery, ["-A", "wrong_code", "worker"])
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: configuration refused: argument: redis.namespace: given 'a b', allowed: 1 to")
    assert len(done.stderr.splitlines()) == 1


def test_the_program_cloudai_says_the_same(project: Path) -> None:
    (project / "wrong_here.py").write_text("from cloudai import CloudAI\napp = CloudAI('shop')\n")
    done = CliRunner().invoke(cloudai, ["-A", "wrong_here", "nodes"])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"Error: {TOLD}\n")
    done = CliRunner().invoke(cloudai, ["-A", "wrong_here", "nodes", "--json"])
    assert (done.exit_code, json.loads(done.stdout)) == (2, {"error": TOLD})


def test_the_body_of_a_task_is_not_ended_but_told(project: Path) -> None:
    (project / "asks_in_a_body.py").write_text(
        "from celery import Celery\nfrom cloudai.errors import ConfigurationError\n"
        "from cloudai.settings import Settings\n"
        "app = Celery('plain', set_as_current=False)\n"
        "@app.task(shared=False)\n"
        "def look():\n"
        "    try:\n"
        "        Settings.load()\n"
        "    except ConfigurationError:\n"
        "        return 'raised'\n"
        "print(look.apply().get())\n"
        "raise SystemExit(0)\n"
    )
    done = CliRunner().invoke(celery, ["-A", "asks_in_a_body", "worker"])
    assert (done.exit_code, done.stdout) == (0, "raised\n")


def test_a_broker_that_is_no_redis_is_told_when_a_command_begins(tmp_path: Path) -> None:
    (tmp_path / "other_broker.py").write_text(
        "from cloudai import CloudAI\napp = CloudAI('shop', broker='amqp://localhost')\n"
    )
    done = run(tmp_path, "-A", "other_broker", "beat")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Error: configuration refused: broker_url: amqp://...: CloudAI keeps its state in the" in done.stderr


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Celery's program in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDAI_")}
    return subprocess.run(
        [sys.executable, "-m", "celery", *args], capture_output=True, text=True, timeout=60, cwd=folder, env=clean
    )
