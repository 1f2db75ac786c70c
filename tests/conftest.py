"""Real servers and clusters for every test that asks for one, and a check that no test leaves keys behind in Redis."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path

import docker
import docker.errors
import hypothesis
import pytest
import redis

from cloudai import names
from cloudai.embedded import EmbeddedMongo, EmbeddedValkey

from .integration.celery.cluster import Cluster

# The same examples in every run, and no bound on time: other work on the machine must not fail a test.
hypothesis.settings.register_profile(
    "suite", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")

#: A test of the optimiser may have to compile it first, which no test may fail for: a minute on a busy machine, s.
_COMPILING_TIMEOUT_S = 600


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """One Valkey for the session; `redis_url` gives each test an empty one."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_url(valkey_server: EmbeddedValkey) -> str:
    """The address of an empty Valkey, started again if an earlier test stopped or killed it."""
    valkey_server.start()
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
        client.script_flush()
    return valkey_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the test's Valkey; text comes back as str."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedMongo]:
    """One document store for the session."""
    with EmbeddedMongo(tmp_path_factory.mktemp("mongo")) as server:
        yield server


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


def engine_problem() -> str:
    """Why no Docker engine can be used; empty if one answers."""
    with warnings.catch_warnings():
        # Where nothing answers, the SDK leaves its socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with closing(docker.from_env()) as client:
                client.ping()
        except docker.errors.DockerException as error:
            problem = str(error)
        else:
            return ""
        gc.collect()
    return problem


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[docker.DockerClient]:
    """A client of the Docker engine; without one the test is skipped aloud, and fails in CI."""
    problem = engine_problem()
    if problem and os.environ.get("CI"):
        pytest.fail(f"no Docker engine answers, and CI must have one: {problem}")
    if problem:
        pytest.skip(f"no Docker engine answers: {problem}")
    with closing(docker.from_env()) as client:
        yield client


@pytest.fixture(autouse=True)
def no_leaked_keys(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a key of ours without a TTL and without a rule that bounds it."""
    if "redis_url" not in request.fixturenames:
        yield
        return
    server: EmbeddedValkey = request.getfixturevalue("valkey_server")
    yield
    if server.is_running():
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            leaks = list(leaked_keys(client))
        assert not leaks, "keys without a TTL that no rule owns:\n  " + "\n  ".join(leaks)


def leaked_keys(client: redis.Redis) -> Iterator[str]:
    """Keys of any deployment that have no TTL and break a rule, each with the reason.

    Args:
        client: a client that decodes responses.
    """
    for key in client.scan_iter(match="{*}:*", count=1000):
        if client.ttl(key) == -1:
            prefix, _, name = key.partition("}:")
            reason = broken_rule(client, prefix + "}:", name)
            if reason:
                yield f"{key}: {reason}"


def broken_rule(client: redis.Redis, prefix: str, name: str) -> str:
    """Why a key without a TTL is a leak; empty if a rule owns it. A kind of key with a rule gets it here."""
    if not any(fnmatchcase(name, pattern) for pattern in names.PERMANENT_KEYS):
        return "not in names.PERMANENT_KEYS"
    kind, _, task_id = name.partition(":")
    if kind in ("task", "message", "next"):
        state = client.hget(f"{prefix}task:{task_id}", "state")
        if state is None and kind != "task":
            return "its task's ledger entry is gone"
        settled = client.zscore(f"{prefix}unsettled", task_id) is None
        if state in names.FINAL_STATES and settled:
            return f"its task is {state} and settled"
    return ""


def pytest_itemcollected(item: pytest.Item) -> None:
    # Celery 5.7 stores results by a command that redis-py has begun to call deprecated.
    item.add_marker(pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"))
    if "beat" in item.path.relative_to(Path(__file__).parent).parts:
        item.add_marker(pytest.mark.timeout(_COMPILING_TIMEOUT_S))
