"""What an extra brings is enough for what it is for: other packages are not imported on the way."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROGRAM = textwrap.dedent(
    """
    import re, sys
    from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

    def name(text):
        return re.sub(r"[-_.]+", "-", text).lower()

    # What the requirements bring, and what those bring; extras asked for count.
    wanted, seen = [("cloudai", frozenset(sys.argv[1].split()))], set()
    while wanted:
        project, extras = wanted.pop()
        if (project, extras) in seen:
            continue
        seen.add((project, extras))
        try:
            requires = distribution(project).requires or []
        except PackageNotFoundError:
            continue
        for line in requires:
            if "extra ==" in line and not any(re.search(rf"extra == .{extra}.", line) for extra in extras):
                continue
            found = re.match(r"([A-Za-z0-9._-]+)(?:\\[([^\\]]*)\\])?", line)
            wanted.append((name(found[1]), frozenset(filter(None, (found[2] or "").replace(" ", "").split(",")))))
    installed = {project for project, _ in seen}
    owners = packages_distributions()

    class Refuse:
        def find_spec(self, module, path=None, target=None):
            names = {name(owner) for owner in owners.get(module.partition(".")[0], ())}
            if names and not names & installed:
                raise ModuleNotFoundError(f"{module} comes with {sorted(names)}", name=module)
            return None

    sys.meta_path.insert(0, Refuse())
    """
)

#: Submitting, and the commands.
PRODUCER = """
from cloudai import CloudAI, run_container
from cloudai.celery import app
from cloudai.settings import Settings
app.connection_for_write().transport
import cloudai.cli
print("made")
"""
#: As `celery -A cloudai_beat.app worker -B -P solo` makes it.
CONTROL = """
from kombu.utils.imports import symbol_by_name
from cloudai_beat.app import app
from cloudai_beat.control import find_search
import cloudai_beat.epoch_run
app.Worker(pool="solo", hostname="control@here", beat=True)
# What a message that arrives needs.
for task in app.tasks.values():
    symbol_by_name(task.Strategy), symbol_by_name(task.Request)
assert find_search() is not None
print("made")
"""
#: As `celery -A cloudai worker` makes it.
NODE = """
from cloudai.celery import app
app.Worker(hostname="node@here")
import cloudai_workers.runners.docker_runner
print("made")
"""


def run(extras: str, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + program, extras], capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize(
    ("extras", "program"),
    [("", PRODUCER), ("beat", CONTROL), ("worker", NODE)],
    ids=["submitting", "control", "node"],
)
def test_it_is_enough(extras: str, program: str) -> None:
    done = run(extras, program)
    assert done.stdout.strip() == "made", done.stderr[-2000:]


def test_a_node_without_its_extra_says_what_to_install() -> None:
    done = run("", NODE)
    assert "pip install 'cloudai[worker]'" in done.stderr
