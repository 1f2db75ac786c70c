"""One cluster for a test module, and a folder for witnesses and gates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..integration.celery.cluster import Cluster


@pytest.fixture(scope="module")
def bare_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Valkey and an application; a test module starts the workers that it needs."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    """A file to which the bodies of tasks append a line when they run."""
    return tmp_path / "witness"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that `jobs.hold` waits for: touch it to let the task end."""
    return tmp_path / "gate"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Celery 5.7 stores results by a command that redis-py has begun to call deprecated."""
    item.add_marker(pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"))
