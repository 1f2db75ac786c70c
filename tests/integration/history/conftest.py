"""A history of its own for each test: a database on the embedded store, or on the server of CLOUDAI_TEST_MONGO_URL.

That server must be reachable without TLS, because a door stands before it.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from pymongo.database import Database
from pymongo.uri_parser import parse_uri

from cloudai.deployment import Deployment
from cloudai.embedded import EmbeddedMongo
from cloudai.history.documents import changes_of
from cloudai.history.recorder import Recorded, Recorder
from cloudai.history.store import HistoryStore
from cloudai.state.attempts import Claim

from ..state.conftest import Lab, lab_settings
from .door import Door

#: The features of every placement of these tests, as the router writes them.
FEATURES = (0.25, 0.125, 0.0, 0.5)
#: What the router foretold: tau, E, version of the parameters.
FORETOLD = (("tau", 5.0), ("parameters", 3), ("predicted", 6.25))


@pytest.fixture(scope="session")
def mongo_address(request: pytest.FixtureRequest) -> tuple[str, int]:
    """Host and port of the server under test."""
    given = os.environ.get("CLOUDAI_TEST_MONGO_URL")
    if given:
        host, port = parse_uri(given)["nodelist"][0]
        return host, port or 27017
    server: EmbeddedMongo = request.getfixturevalue("mongo_server")
    return "127.0.0.1", server.port


@pytest.fixture(scope="session")
def session_door(mongo_address: tuple[str, int]) -> Iterator[Door]:
    door = Door(*mongo_address)
    yield door
    door.close()


@pytest.fixture
def door(session_door: Door) -> Iterator[Door]:
    """The way to the server, to be shut at will."""
    session_door.open()
    yield session_door
    session_door.open()


@pytest.fixture
def database(session_door: Door, mongo_address: tuple[str, int]) -> Iterator[Database[dict[str, Any]]]:
    """An empty database, seen without the door."""
    host, port = mongo_address
    with pymongo.MongoClient(host, port, directConnection=True, tz_aware=True) as client:
        name = f"history-{secrets.token_hex(4)}"
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def store(door: Door, database: Database[dict[str, Any]]) -> Iterator[HistoryStore]:
    """The history in that database, through the door."""
    with HistoryStore(door.url, database.name, retention_days=30.0, timeout_s=2.0) as store:
        yield store


class Jobs:
    """A deployment whose jobs make history, and its recorder."""

    def __init__(self, lab: Lab, store: HistoryStore) -> None:
        self.lab = lab
        self.deployment: Deployment = lab.deployment
        self.store = store
        self.recorder = self.new_recorder()

    def new_recorder(self) -> Recorder:
        """One more, as in another process."""
        return Recorder(self.deployment, self.store, retry_s=0.0)

    def submit(self, task_id: str, *nodes: str, **fields: Any) -> str:
        """Submit with these candidates; its status."""
        fields = {"extra": FORETOLD, **fields}
        candidates = [(node, json.dumps(FEATURES)) for node in nodes]
        return self.lab.ledger.place(self.lab.submission(task_id, **fields), candidates, 0).status

    def run(self, task_id: str, node: str = "n1", **fields: Any) -> Claim:
        """Submit a task that fits and claim it."""
        assert self.submit(task_id, node, **fields) == "placed"
        return self.lab.take(node)

    def complete(
        self, task_id: str, node: str = "n1", outcome: str = "succeeded", runtime_s: float | None = 2.0, **fields: Any
    ) -> None:
        """Submit a task, run it, end it."""
        claim = self.run(task_id, node, **fields)
        self.lab.ledger.finish(task_id, claim.attempt, outcome, runtime_s=runtime_s)

    def record(self) -> None:
        """Record everything; nothing must be left over, or be unreadable."""
        recorded = self.catch_up()
        assert (recorded.behind, recorded.skipped) == (0, {})

    def catch_up(self, recorder: Recorder | None = None) -> Recorded:
        """Record once the driver has noticed that the history is back; what the call did in which it had."""
        recorder = recorder or self.recorder
        deadline = time.monotonic() + 60
        while (recorded := recorder.record_once()).problem:
            assert time.monotonic() < deadline, recorded.problem
        return recorded

    def write_unrecorded(self) -> Counter[str]:
        """Write what is in the stream and die before the stream knows."""
        return self.store.write(changes_of(self.deployment.events.unrecorded(100_000).events))


@pytest.fixture
def jobs(redis_url: str, store: HistoryStore) -> Iterator[Jobs]:
    """A deployment with one node, `n1`, over an empty Valkey and an empty history."""
    lab = Lab(lab_settings(redis_url))
    lab.join("n1")
    yield Jobs(lab, store)
    lab.client.close()
