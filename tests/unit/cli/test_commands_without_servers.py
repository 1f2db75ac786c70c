"""The program itself: help, errors, exit codes; nothing here needs a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cloudai.cli import cloudai
from cloudai.cli.lazy_group import LazyCommand, LazyGroup

#: A port that nothing listens on: 1 is reserved.
NO_REDIS = "redis://:secret@127.0.0.1:1/0"


def run(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, as a user runs it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDAI_")}
    return subprocess.run(
        [sys.executable, "-c", "from cloudai.cli import main; main()", *args],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**clean, "CLOUDAI_REDIS__URL": NO_REDIS, **env},
    )


def test_help_names_every_command_and_loads_none_of_them() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from cloudai.cli import cloudai\n"
        "print(CliRunner().invoke(cloudai, ['--help']).output)\n"
        "print([name for name in ('celery', 'numpy', 'redis', 'docker') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert all(name in done.stdout for name in ("init", "submit", "explain", "doctor", "params"))
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize("args", [("--help",), ("tau", "--help"), ("params", "load", "--help")])
def test_every_help_page_opens(args: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cloudai, args)
    assert done.exit_code == 0
    assert "Usage:" in done.output


@pytest.mark.parametrize("name", [n for n in cloudai.commands_table if n not in ("up", "demo", "bench")])
def test_every_command_takes_json(name: str) -> None:
    command = cloudai.get_command(click.Context(cloudai), name)
    assert command is not None
    leaves = command.commands.values() if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        assert "--json" in [option for parameter in leaf.params for option in parameter.opts]


def test_a_missing_extra_is_told_in_one_sentence() -> None:
    table = {"shine": LazyCommand("no_such_package_of_ours.part:shine", "Shine.", extra="local")}
    group = LazyGroup("cloudai", commands_table=table)
    done = CliRunner().invoke(group, ["shine"])
    assert done.exit_code == 1
    assert "no_such_package_of_ours, which is not installed: pip install 'cloudai[local]'" in done.stderr


def test_mistakes_under_json_are_one_json_value() -> None:
    for args in (
        ["statsu", "--json"],
        ["submit", "--json"],
        ["--bogus", "--json"],
        ["tau", "bogus", "--json"],
    ):
        done = CliRunner().invoke(cloudai, args)
        assert done.exit_code == 2
        assert list(json.loads(done.stdout)) == ["error"]


def test_json_behind_the_dashes_belongs_to_the_job() -> None:
    done = CliRunner().invoke(cloudai, ["submit", "--count", "0", "busybox", "--", "cat", "--json"])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "--count" in done.stderr


def test_init_writes_the_commented_defaults_once(tmp_path: Path) -> None:
    path = tmp_path / "cloudai.toml"
    done = CliRunner().invoke(cloudai, ["init", str(path), "--json"])
    assert json.loads(done.stdout) == {"written": str(path)}
    assert set(tomllib.loads(path.read_text())) == {"redis", "scheduling", "learning", "limits", "node", "optimiser"}
    path.write_text("# mine\n")
    again = CliRunner().invoke(cloudai, ["init", str(path)])
    assert again.exit_code == 2
    assert path.read_text() == "# mine\n"


def test_without_redis_the_url_is_named_and_the_password_is_not(tmp_path: Path) -> None:
    done = run("status", cwd=tmp_path)
    assert done.returncode == 1
    assert "redis://:***@127.0.0.1:1/0 does not answer" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_without_redis_says_what_to_do_and_fails(tmp_path: Path) -> None:
    done = run("doctor", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["healthy"] is False
    [redis] = [check for check in report["checks"] if check["name"] == "Redis"]
    assert redis["status"] == "missing"
    assert "cloudai up" in redis["advice"]
    [history] = [check for check in report["checks"] if check["name"] == "MongoDB"]
    assert history["status"] == "warning"
    assert "CLOUDAI_OPTIMISER__MONGO_URL" in history["advice"]
    assert "secret" not in done.stdout


def test_doctor_looks_at_the_machine_though_the_configuration_is_refused(tmp_path: Path) -> None:
    done = run("doctor", "--json", cwd=tmp_path, CLOUDAI_LIMITS__TAIL_KIB="much")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert checks["Python"]["status"] == "ok"
    assert "limits.tail_kib" in checks["configuration"]["found"]


def test_a_refused_configuration_is_bad_input(tmp_path: Path) -> None:
    done = run("status", "--json", cwd=tmp_path, CLOUDAI_LIMITS__TAIL_KIB="much")
    assert done.returncode == 2
    assert "limits.tail_kib" in json.loads(done.stdout)["error"]


def test_an_application_that_is_none_is_refused(tmp_path: Path) -> None:
    for app in ("os:path", "no_such_module_of_ours"):
        done = run("-A", app, "status", cwd=tmp_path)
        assert done.returncode == 2
        assert "app:" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_misspelt_command_is_told_with_the_one_that_is_meant(tmp_path: Path) -> None:
    done = run("nodez", cwd=tmp_path)
    assert done.returncode == 2
    assert "No such command 'nodez'. Did you mean 'nodes'?" in done.stderr


def test_a_node_with_a_wrong_setting_says_which_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "cloudai", "worker"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "CLOUDAI_NODE__CPU": "-1"},
    )
    assert done.returncode == 2
    assert "CLOUDAI_NODE__CPU: node.cpu: given '-1', allowed: a number more than 0" in done.stderr
    assert "Traceback" not in done.stderr
