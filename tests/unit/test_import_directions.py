"""Who may import whom: the contracts of import-linter in pyproject.toml hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = [REPOSITORY, REPOSITORY / "workers", REPOSITORY / "beat"]


def lint(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [folder, *SOURCES]))}
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
            "--config",
            str(config),
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_the_contracts_hold():
    result = lint(REPOSITORY, REPOSITORY / "pyproject.toml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("cloudai/scheduling/rts.py", "from cloudai import names", "The scheduling core is pure"),
        ("cloudai/scheduling/rts.py", "import redis", "The scheduling core is pure"),
        ("cloudai/names.py", "import cloudai_workers", "The library never imports"),
        ("cloudai/state/fleet.py", "import cloudai.app", "Live state is Redis and values"),
        ("cloudai_workers/node.py", "import cloudai_beat", "do not know each other"),
        ("cloudai/containers/spec.py", "import docker", "What a producer imports"),
    ],
)
def test_the_contracts_catch_an_import_that_goes_the_wrong_way(module, line, contract, tmp_path):
    """In a small copy of the layout with one wrong import in it."""
    for name in [
        "cloudai/__init__.py",
        "cloudai/names.py",
        "cloudai/app.py",
        "cloudai/scheduling/__init__.py",
        "cloudai/state/__init__.py",
        "cloudai/containers/__init__.py",
        "cloudai_workers/__init__.py",
        "cloudai_beat/__init__.py",
    ]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import celery\n" if name == "cloudai/app.py" else "")
    (tmp_path / module).write_text(line + "\n")
    result = lint(tmp_path, REPOSITORY / "pyproject.toml")
    assert result.returncode == 1, result.stdout + result.stderr
    broken = [text for text in result.stdout.splitlines() if text.endswith("BROKEN")]
    assert any(contract in text for text in broken), result.stdout
