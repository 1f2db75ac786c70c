"""Indexes, and dropping what is older than the retention: by the server where it can, and by us in any case."""

from __future__ import annotations

import logging
from datetime import timedelta

from pymongo import IndexModel
from pymongo.database import Database
from pymongo.errors import OperationFailure

from cloudai.history.collections import EXPIRING, INDEXES, PARAMETERS, WORKER_REGISTRY
from cloudai.history.connection import Document
from cloudai.history.documents import day
from cloudai.state.fleet import DOWN, NODE_LOST

logger = logging.getLogger(__name__)

#: Name of the index by which a server expires documents.
_TTL = "retention"
#: The same index is there with another retention, or another name.
_CONFLICTS = frozenset({85, 86})


def make_indexes(database: Database[Document], retention_days: float) -> None:
    """Make what is missing; idempotent. A changed retention changes the index."""
    for collection, indexes in INDEXES.items():
        database[collection].create_indexes([IndexModel(list(fields)) for fields in indexes])
    seconds = int(timedelta(days=retention_days).total_seconds())
    for collection in EXPIRING:
        try:
            database[collection].create_index([("at", 1)], name=_TTL, expireAfterSeconds=seconds)
        except OperationFailure as error:
            if error.code not in _CONFLICTS:
                raise
            database.command(
                "collMod", collection, index={"keyPattern": {"at": 1}, "expireAfterSeconds": seconds}
            )


def prune(database: Database[Document], now: float, retention_days: float) -> dict[str, int]:
    """Drop documents that are older than the retention; returns how many, by collection.

    Of the published parameters the newest stay; a node stays in the registry until it is gone for so long.
    """
    before = now - timedelta(days=retention_days).total_seconds()
    dropped = {
        collection: database[collection].delete_many({"at": {"$lt": day(before)}}).deleted_count
        for collection in EXPIRING
    }
    newest = database[PARAMETERS].find_one(sort=[("published_at", -1)])
    if newest is not None:
        old: Document = {"published_at": {"$lt": before}, "_id": {"$ne": newest["_id"]}}
        dropped[PARAMETERS] = database[PARAMETERS].delete_many(old).deleted_count
    gone: Document = {"state": {"$in": [DOWN, NODE_LOST]}, "since": {"$lt": before}}
    dropped[WORKER_REGISTRY] = database[WORKER_REGISTRY].delete_many(gone).deleted_count
    return dropped
