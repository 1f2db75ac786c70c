"""Old task types of the whole history, brought to the six of today (spec section 9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudai.history.collections import RESULTS, TASKS
from cloudai.history.connection import Document
from cloudai.history.reading import Unreadable, amount
from cloudai.history.store import HistoryStore
from cloudai.history.task_types import normalised_type

#: Documents that are updated in one bulk.
_TOGETHER = 1000
#: What a migration reads of a document.
_FIELDS = ("task_type", "type", "cpu", "memory", "gpu")
#: How a distribution calls a label that is missing or empty, and one that is no text.
NO_LABEL = "(none)"
NO_TEXT = "(no text)"


@dataclass(slots=True)
class Migrated:
    """One collection: what was there, and what is there now, or would be."""

    #: Documents read; and how many of them changed, or would change.
    read: int = 0
    changed: int = 0
    #: How many documents had each label before, and how many have each type after.
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    #: Documents left as they are, because their request cannot be read: how many, by reason.
    unreadable: Counter[str] = field(default_factory=Counter)


def migrate_task_types(store: HistoryStore, *, dry_run: bool) -> dict[str, Migrated]:
    """Give every task and every result one of the six types; by collection, what changed.

    Missing or empty labels are inferred from the request, known old labels have their successors, others become mixed
    (task_types.py). May be repeated, and interrupted: what is done stays done. Raises HistoryError.
    """
    report = {TASKS: Migrated(), RESULTS: Migrated()}
    for collection, done in report.items():
        pending: dict[Any, str] = {}
        for document in store.each_document(collection, *_FIELDS):
            done.read += 1
            label = _label(document)
            done.before[_name(label)] += 1
            try:
                today = _type_of(document, label)
            except Unreadable as reason:
                done.unreadable[str(reason)] += 1
                done.after[_name(label)] += 1
                continue
            done.after[today] += 1
            if document.get("task_type") == today:
                continue
            done.changed += 1
            pending[document["_id"]] = today
            if len(pending) == _TOGETHER and not dry_run:
                store.set_task_types(collection, pending)
                pending.clear()
            elif dry_run:
                pending.clear()
        if pending:
            store.set_task_types(collection, pending)
    return report


def _label(document: Mapping[str, Any]) -> object:
    # Before it was called task_type, it was called type.
    return document.get("task_type") or document.get("type")


def _type_of(document: Document, label: object) -> str:
    cpu, memory, gpu = (amount(document, name) for name in ("cpu", "memory", "gpu")) if not label else (0.0, 0.0, 0.0)
    return normalised_type(label, cpu=cpu, memory=memory, gpu=gpu)


def _name(label: object) -> str:
    if not label:
        return NO_LABEL
    return label if isinstance(label, str) else NO_TEXT
