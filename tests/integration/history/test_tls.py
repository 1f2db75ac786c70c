"""The history over TLS: the same records, and no server that nobody vouches for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from cloudai.history.errors import HistoryUnavailable
from cloudai.history.store import HistoryStore

from ..security.tls import CERTIFICATE, TlsDoor
from .conftest import Jobs


@pytest.fixture
def tls_door(mongo_address: tuple[str, int]) -> Iterator[TlsDoor]:
    host, port = mongo_address
    door = TlsDoor(port, host)
    yield door
    door.close()


@pytest.fixture
def store(tls_door: TlsDoor, database: Any) -> Iterator[HistoryStore]:
    """The history of these tests, as `optimiser.mongo_url` names one that speaks TLS."""
    url = f"mongodb://127.0.0.1:{tls_door.port}/?directConnection=true&tls=true&tlsCAFile={CERTIFICATE}"
    with HistoryStore(url, database.name) as store:
        yield store


def test_it_is_recorded_and_read(jobs: Jobs, tls_door: TlsDoor) -> None:
    jobs.complete("t1")
    jobs.record()
    (record,) = jobs.store.task_history(0.0, 1e12, 10).records
    assert (record.task_id, record.outcome) == ("t1", "succeeded")
    assert tls_door.passed


def test_a_certificate_of_nobody_is_refused_and_said(tls_door: TlsDoor) -> None:
    url = f"mongodb://127.0.0.1:{tls_door.port}/?directConnection=true&tls=true"
    ends = time.monotonic() + 60
    said = ""
    with HistoryStore(url, "nobody", timeout_s=0.5) as distrusting:
        # The driver says what it met last; on a slow machine that may be its own patience.
        while "certificate verify failed" not in said:
            assert time.monotonic() < ends, said
            with pytest.raises(HistoryUnavailable) as refused:
                distrusting.ping()
            said = str(refused.value)
    assert "optimiser.mongo_url" in said
    assert not tls_door.passed


def test_secrets_of_a_url_are_not_shown() -> None:
    url = "mongodb://ann:geheim@db1/?tls=true&tlsCertificateKeyFile=me.pem&tlsCertificateKeyFilePassword=geheim&w=1"
    where = HistoryStore(url, "history").where
    assert where == (
        "database history at mongodb://ann:***@db1/?tls=true&tlsCertificateKeyFile=me.pem"
        "&tlsCertificateKeyFilePassword=***&w=1"
    )
