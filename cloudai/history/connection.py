"""The connection to MongoDB: made when first used, short of patience, and its errors said plainly."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cloudai.history.errors import HistoryError, HistoryReadOnly, HistoryUnavailable

try:
    from pymongo import MongoClient
    from pymongo.database import Database
    from pymongo.errors import (
        BulkWriteError,
        ConfigurationError,
        ConnectionFailure,
        NotPrimaryError,
        OperationFailure,
        PyMongoError,
    )
except ImportError as missing:  # named as an extra, because pymongo alone does not bring the optimiser
    raise HistoryUnavailable("pymongo is not installed: pip install 'cloudai[beat]' brings it") from missing

Document = dict[str, Any]

#: One command may take so long, seconds: a large read, or a bulk write to a slow disk.
_COMMAND_S = 60.0
#: The server's codes for a login that it refuses.
_LOGIN = frozenset({11, 18, 8000})
#: Its codes for a write that is not allowed: not authorised, not primary, a read-only view or storage.
_READ_ONLY = frozenset({13, 166, 10107, 13435, 10058})
#: Words of servers that have no code for it.
_READ_ONLY_WORDS = re.compile(r"read-?\s?only", re.IGNORECASE)
_WHERE_SET = "optimiser.mongo_url (CLOUDAI_OPTIMISER__MONGO_URL or cloudai.toml)"
_PASSWORD = re.compile(r"(://[^/@\s]*?:)[^/@\s]+@")
#: Options of a URL that hold a secret.
_SECRET_OPTION = re.compile(r"(tlsCertificateKeyFilePassword|authMechanismProperties)=[^&]*", re.IGNORECASE)


class Connection:
    """One database on one server. After a fork the child makes a client of its own."""

    def __init__(self, url: str, database: str, *, timeout_s: float) -> None:
        self._url = url
        self._name = database
        self._timeout_s = timeout_s
        self._client: MongoClient[Document] | None = None
        self._pid = 0
        self._opening = threading.Lock()

    @property
    def where(self) -> str:
        """The server and database, without a password."""
        server = _SECRET_OPTION.sub(r"\1=***", _PASSWORD.sub(r"\1***@", self._url))
        return f"database {self._name} at {server}"

    def close(self) -> None:
        """Close it; the next use opens it again."""
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()

    @contextmanager
    def database(self, doing: str, *, writing: bool = False) -> Iterator[Database[Document]]:
        """The database, for one piece of work. Raises HistoryUnavailable, HistoryReadOnly or HistoryError."""
        try:
            yield self._open()[self._name]
        except NotPrimaryError as error:
            raise self._read_only(doing, error) from error
        except (ConnectionFailure, ConfigurationError) as error:
            raise HistoryUnavailable(
                f"MongoDB does not answer ({self.where}): {_reason(error)}. Start it, or correct {_WHERE_SET}"
            ) from error
        except OperationFailure as error:
            code, text = _first_failure(error)
            if code in _LOGIN:
                raise HistoryUnavailable(
                    f"MongoDB refuses the login ({self.where}): {text}. Correct {_WHERE_SET}"
                ) from error
            if writing and (code in _READ_ONLY or _READ_ONLY_WORDS.search(text)):
                raise self._read_only(doing, text) from error
            raise HistoryError(f"MongoDB refused {doing} ({self.where}): {text} (code {code})") from error
        except PyMongoError as error:
            raise HistoryError(f"{doing} failed ({self.where}): {_reason(error)}") from error

    def _read_only(self, doing: str, reason: object) -> HistoryReadOnly:
        return HistoryReadOnly(
            f"MongoDB answers but refused {doing} ({self.where}): {reason}. Give the user of optimiser.mongo_url the "
            "role readWrite there, and connect to the primary"
        )

    def _open(self) -> MongoClient[Document]:
        with self._opening:
            if self._client is None or self._pid != os.getpid():
                patience_ms = int(self._timeout_s * 1000)
                # tz_aware: dates that go in as UTC come back as UTC.
                self._client = MongoClient(
                    self._url,
                    appname="cloudai",
                    tz_aware=True,
                    serverSelectionTimeoutMS=patience_ms,
                    connectTimeoutMS=patience_ms,
                    socketTimeoutMS=int(_COMMAND_S * 1000),
                )
                self._pid = os.getpid()
            return self._client


def _first_failure(error: OperationFailure) -> tuple[int | None, str]:
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        failures = [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
        if failures:
            return failures[0].get("code"), str(failures[0].get("errmsg"))
    return error.code, str((error.details or {}).get("errmsg") or error)


def _reason(error: Exception) -> str:
    # What follows the first sentence is the driver's description of its whole topology.
    return str(error).partition(", Timeout:")[0].partition(" (configured timeouts")[0].rstrip(".")
