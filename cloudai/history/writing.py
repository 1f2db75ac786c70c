"""Bulk writes that may be made again: a document changes only if what it holds is older in the stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import bson
from bson.errors import InvalidDocument
from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DocumentTooLarge

from cloudai.history.connection import Document

#: Documents in one command: a slow server answers each within seconds.
_TOGETHER = 1000
#: The guard was not met, so the upsert ran into the document's own id: what is there is as new.
_NOT_OLDER = 11_000
#: Codes that speak of the document, and would again: bad value, unparsable, wrong type, invalid BSON, names that cannot
#: be, validation by the operator's own rules, too large.
_UNACCEPTABLE = frozenset({2, 9, 14, 22, 52, 55, 56, 57, 121, 10_334, 17_419, 17_420})


def write_all(
    database: Database[Document], documents: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Counter[str]:
    """Write documents by collection and id, each with `seq`; returns how many can never be written, by reason."""
    refused: Counter[str] = Counter()
    for collection, by_id in documents.items():
        operations = [
            UpdateOne({"_id": document_id, "seq": {"$lt": fields["seq"]}}, {"$set": fields}, upsert=True)
            for document_id, fields in by_id.items()
        ]
        for begin in range(0, len(operations), _TOGETHER):
            _write(database, collection, operations[begin : begin + _TOGETHER], refused)
    return refused


def _write(
    database: Database[Document], collection: str, operations: Sequence[UpdateOne], refused: Counter[str]
) -> None:
    try:
        database[collection].bulk_write(operations, ordered=False)
    except BulkWriteError as error:
        details = error.details or {}
        for failure in details.get("writeErrors", ()):
            code = failure.get("code")
            if code in _UNACCEPTABLE:
                refused[f"{collection}: {failure.get('errmsg')}"[:160]] += 1
            elif code != _NOT_OLDER:
                raise
        if details.get("writeConcernErrors"):
            raise
    except (InvalidDocument, OverflowError, DocumentTooLarge):
        sound = list(_sound(collection, operations, refused))
        if len(sound) == len(operations):
            raise
        if sound:
            _write(database, collection, sound, refused)


def _sound(collection: str, operations: Iterable[UpdateOne], refused: Counter[str]) -> Iterable[UpdateOne]:
    """Those that can be sent at all."""
    for operation in operations:
        update: Any = operation._doc
        try:
            size = len(bson.encode(update))
        except (InvalidDocument, OverflowError) as error:
            refused[f"{collection}: {error}"[:160]] += 1
            continue
        if size > 16 * 1024 * 1024 - 1024:
            refused[f"{collection}: larger than a document may be"] += 1
        else:
            yield operation
