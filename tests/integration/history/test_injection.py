"""Text that would be an operator or a path in a query is text in the history, and finds nothing but itself."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo.database import Database

from .conftest import Jobs

FOREVER = (0.0, 1e12)
#: What a submitter can choose freely, as somebody would who wants it read as more than text.
TEXTS = ["$where", '{"$ne": null}', "a.b.$[]", "$$ROOT", "__proto__", "'; return true; //", "function() { return 1 }"]


@pytest.mark.parametrize("text", TEXTS)
def test_chosen_text_stays_text(jobs: Jobs, database: Database[dict[str, Any]], text: str) -> None:
    jobs.complete("innocent")
    jobs.complete(text, extra=(("tau", 5.0), ("parameters", 3), ("family", text), ("user", text)))
    jobs.record()
    record = {one.task_id: one for one in jobs.store.task_history(*FOREVER, 10).records}[text]
    assert (record.task_id, record.outcome) == (text, "succeeded")
    task = jobs.store.task(text)
    assert task is not None
    assert (task["_id"], task["family"], task["user_id"]) == (text, text, text)
    assert database["TASKS"].count_documents({}) == 2


def test_what_is_not_text_finds_nothing(jobs: Jobs) -> None:
    """A caller that passes on what came as JSON: an object is no id."""
    jobs.complete("innocent")
    jobs.record()
    for given in ({"$ne": None}, {"$gt": ""}, ["innocent"], None, 1):
        with pytest.raises(TypeError, match="task_id"):
            jobs.store.task(given)  # type: ignore[arg-type]
