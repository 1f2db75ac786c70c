"""Bulk writes that may be made again: a document changes only if what it holds is older in the stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import bson
from bson.errors import InvalidDocument
from pymongo import UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DocumentTooLarge

from cloudai.history.connection import Document

#: An id, and what is set there.
Item = tuple[str, Mapping[str, Any]]

#: Documents in one command: a slow server answers each within seconds.
_TOGETHER = 1000
#: The guard was not met, so the upsert ran into the document's own id.
_IS_THERE = 11_000
#: Codes that speak of the document, and would again: bad value, unparsable, wrong type, invalid BSON, names that cannot
#: be, validation by the operator's own rules, too large.
_UNACCEPTABLE = frozenset({2, 9, 14, 22, 52, 55, 56, 57, 121, 10_334, 17_419, 17_420})
#: Largest document, bytes, less what the server adds.
_LARGEST = 16 * 1024 * 1024 - 1024


def write_all(
    database: Database[Document], documents: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Counter[str]:
    """Write documents by collection and id, each with `seq`; returns how many can never be written, by reason."""
    refused: Counter[str] = Counter()
    for collection, by_id in documents.items():
        items = list(by_id.items())
        for begin in range(0, len(items), _TOGETHER):
            _write(database, collection, items[begin : begin + _TOGETHER], refused)
    return refused


def _write(
    database: Database[Document],
    collection: str,
    items: Sequence[Item],
    refused: Counter[str],
    *,
    upsert: bool = True,
) -> None:
    operations = [
        UpdateOne({"_id": document_id, "seq": {"$lt": fields["seq"]}}, {"$set": fields}, upsert=upsert)
        for document_id, fields in items
    ]
    try:
        database[collection].bulk_write(operations, ordered=False)
    except BulkWriteError as error:
        details = error.details or {}
        if details.get("writeConcernErrors"):
            raise
        there: list[Item] = []
        for failure in details.get("writeErrors", ()):
            code = failure.get("code")
            if code in _UNACCEPTABLE:
                refused[f"{collection}: {failure.get('errmsg')}"[:160]] += 1
            elif code == _IS_THERE and upsert:
                there.append(items[failure["index"]])
            else:
                raise
        if there:
            # As new as ours; or another recorder made it at this moment, and it is older.
            _write(database, collection, there, refused, upsert=False)
    except (InvalidDocument, OverflowError, DocumentTooLarge):
        sound = list(_sound(collection, items, refused))
        if len(sound) == len(items):
            raise
        if sound:
            _write(database, collection, sound, refused, upsert=upsert)


def _sound(collection: str, items: Sequence[Item], refused: Counter[str]) -> Iterator[Item]:
    """Those that can be sent at all."""
    for document_id, fields in items:
        try:
            size = len(bson.encode({"_id": document_id, **fields}))
        except (InvalidDocument, OverflowError) as error:
            refused[f"{collection}: {error}"[:160]] += 1
            continue
        if size > _LARGEST:
            refused[f"{collection}: larger than a document may be"] += 1
        else:
            yield document_id, fields
