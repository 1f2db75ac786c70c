"""A Celery project moves to CloudAI as docs/migration.md says; its own tests pass before and after, unchanged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloudai import CloudAI
from cloudai.embedded import EmbeddedValkey
from cloudai.settings import Settings

from ...waiting import until
from ..celery.cluster import WorkerProcess, close

SHOP = Path(__file__).parent / "shop"

#: The move: the class, what tasks ask for, and what a beat entry asks for. Whatever is not here stays.
CHANGES = (
    ("import Celery, chain, chord, group", "import chain, chord, group\n\nfrom cloudai import CloudAI"),
    ('Celery("shop", broker=os.environ["SHOP_REDIS"], backend=os.environ["SHOP_REDIS"])', 'CloudAI("shop")'),
    ('name="shop.price"', 'name="shop.price", resources={"cpu": 0.5, "memory": "64MiB"}, family="price"'),
    ('name="shop.bill"', 'name="shop.bill", resources={"cpu": 1, "memory": "64MiB"}'),
    ('name="shop.collect"', 'name="shop.collect", resources={"cpu": 0.5}'),
    ('name="shop.ship"', 'name="shop.ship", resources={"cpu": 1}'),
    ('name="shop.catalogue"', 'name="shop.catalogue", resources={"cpu": 0.5}'),
    ('("shelf",)}', '("shelf",), "options": {"resources": {"cpu": 0.25}, "family": "stock"}}'),
)  # fmt: skip


def project(folder: Path, changes: tuple[tuple[str, str], ...]) -> Path:
    """A copy of the project with these changes, each of which must find its place once."""
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "shop.py"
    text = source.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    source.write_text(text, encoding="utf-8")
    (folder / "books").mkdir()
    return folder


@contextmanager
def running(folder: Path, environment: Mapping[str, str], *workers: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    """The project's workers and beat, and its own tests beside them."""
    own = {**os.environ, **environment, "SHOP_BOOKS": str(folder / "books"), "PYTHONPATH": str(folder)}
    celery = [sys.executable, "-m", "celery", "-A", "shop"]
    started = [
        WorkerProcess(str(n), [*celery, "worker", "-l", "info", *options], own, folder / f"worker{n}.log")
        for n, options in enumerate(workers)
    ]
    beat = [*celery, "beat", "-s", str(folder / "schedule"), "--pidfile", str(folder / "beat.pid")]
    try:
        for worker in started:
            until(lambda worker=worker: " ready." in worker.log, f"worker {worker.name} is ready", 60)
        started.append(WorkerProcess("beat", beat, own, folder / "beat.log"))
        tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
        with subprocess.Popen(
            [*tests, "--rootdir", str(folder), str(folder / "test_shop.py")],
            env=own, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            yield process
    finally:
        for worker in started:
            worker.stop()


@pytest.mark.timeout(300)
def test_its_own_tests_pass_before_and_after(tmp_path: Path) -> None:
    before, after = project(tmp_path / "before", ()), project(tmp_path / "after", CHANGES)
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        stock = {"SHOP_REDIS": valkey.url.removesuffix("/0") + "/1"}
        ours = {
            "CLOUDAI_REDIS__URL": valkey.url,
            "CLOUDAI_NODE__CPU": "2", "CLOUDAI_NODE__MEMORY": "4GiB", "CLOUDAI_NODE__WORK_DIR": str(after / "work"),
        }  # fmt: skip
        plain, node = ("-n", "plain@t", "-P", "threads", "-c", "2"), ("--node", "-n", "mine@t", "-P", "prefork")
        with running(before, stock, plain) as on_stock, running(after, ours, plain, node) as on_ours:
            for process in (on_stock, on_ours):
                output, _ = process.communicate(timeout=240)
                assert process.returncode == 0, output
                assert "9 passed" in output
        app = CloudAI("look", settings=Settings.load(redis={"url": valkey.url}), set_as_current=False)
        totals = app.deployment.ledger.totals()
        # Everything that asked was placed, beat's entries among them, and nothing was lost on the way.
        assert totals["placements"] >= 30
        assert totals.get("dead_letters_total", 0) == totals.get("attempts_lost", 0) == 0
        events = app.deployment.client.xrange(app.deployment.keys.events)
        names = {fields[b"name"] for _, fields in events if b"name" in fields}
        assert {b"shop.count_stock", b"shop.price", b"shop.ship"} <= names
        assert b"shop.mail" not in names
        close(app)
