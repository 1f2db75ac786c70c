"""`pip install cloudai` alone is enough to submit: what an extra brings is not imported on the way."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PROGRAM = textwrap.dedent(
    """
    import re, sys
    from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

    def name(text):
        return re.sub(r"[-_.]+", "-", text).lower()

    # What the requirements without an extra bring, and what those bring; extras asked for count.
    wanted, seen = [("cloudai", frozenset())], set()
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
                raise ModuleNotFoundError(f"{module} comes with {sorted(names)}, which a producer does not install")
            return None

    sys.meta_path.insert(0, Refuse())
    from cloudai import CloudAI, run_container
    from cloudai.celery import app
    from cloudai.settings import Settings
    app.connection_for_write().transport
    import cloudai.cli
    print("imported")
    """
)


def test_submitting_needs_no_extra() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "imported", done.stderr[-2000:]
