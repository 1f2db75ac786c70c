"""The document store, away until the last job has ended; and whether it then comes to hold all that happened."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import redis

from cloudai.deployment import Deployment
from cloudai.embedded import EmbeddedMongo
from cloudai.history.collections import ASSIGNMENTS, RESULTS, TASKS
from cloudai.local_services import problem_of_control
from cloudai.names import FINAL_STATES

#: What the recorder needs to catch up, and an epoch to come, at most, seconds: one that was killed blocks the next ones
#: for a minute.
CATCH_UP_S = 180.0
EPOCH_S = 150.0


class AwayStore:
    """A document store that has an address, where nothing answers until it is started."""

    def __init__(self, folder: Path) -> None:
        #: Why there can be neither store nor control process here; "" where there can.
        self.problem = problem_of_control() or ""
        # Bound, and not listened at: connections are refused, and nobody else is given the port.
        self._place = socket.socket()
        self._place.bind(("127.0.0.1", 0))
        self._mongo = EmbeddedMongo(folder, port=self._place.getsockname()[1])

    @property
    def url(self) -> str:
        return self._mongo.url

    def start(self) -> None:
        self._place.close()
        self._mongo.start()

    def stop(self) -> None:
        self._place.close()
        self._mongo.stop()


def come_back(
    store: AwayStore, deployment: Deployment, *, database: str, kill_control: Callable[[], None], learns: bool
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Start the store, kill the control process while it records, and wait until all is recorded.

    Args:
        store: the store.
        deployment: of the campaign.
        database: where the history is.
        kill_control: kills the control process and starts it again.
        learns: wait for an epoch that has learned from the records too.

    Returns:
        Collection -> id -> document, and what did not come about.
    """
    store.start()
    wrong = []
    with pymongo.MongoClient[dict[str, Any]](store.url) as client:
        history = client[database]
        # Else it is killed at once: one that starts anew looks sooner than one that has been waiting.
        if learns and not _within(CATCH_UP_S, lambda: history[TASKS].find_one() is not None):
            wrong.append(f"nothing was recorded within {CATCH_UP_S:g} s of the store's return")
        since = time.time()
        kill_control()
        if not _within(CATCH_UP_S, lambda: deployment.events.progress().waiting == 0):
            wrong.append(f"not all was recorded within {CATCH_UP_S:g} s of the control process's return")
        if learns and not _within(EPOCH_S, lambda: _learned(deployment, since)):
            wrong.append(f"no epoch has learned from the history within {EPOCH_S:g} s")
        documents = {
            name: {str(document["_id"]): document for document in history[name].find()}
            for name in (TASKS, ASSIGNMENTS, RESULTS)
        }
    return documents, wrong


def _learned(deployment: Deployment, since: float) -> bool:
    return any(report["at"] > since and report.get("records") for report in deployment.epochs.latest(5))


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(redis.RedisError, pymongo.errors.PyMongoError):
            if condition():
                return True
        time.sleep(0.02)
    return False


def unrecorded(
    documents: dict[str, dict[str, dict[str, Any]]],
    *,
    states: dict[str, str],
    accepted: list[list[str]],
    events: list[dict[str, str]],
    succeeded: set[str],
) -> dict[str, str]:
    """The tasks that the history does not tell of as it happened: what is missing or different, by task.

    Args:
        documents: the history, by collection and id.
        states: where the ledger has each task at the end; "" or left out: it knows none.
        accepted: the tasks of each accepted job, in order.
        events: the event stream.
        succeeded: tasks of which Celery's own result says so.
    """
    tasks, assignments, results = (documents.get(name, {}) for name in (TASKS, ASSIGNMENTS, RESULTS))
    found: dict[str, str] = {}
    for job in accepted:
        # The first task of a job is published with it, the others as it goes on.
        if job[0] not in tasks:
            found.setdefault(job[0], "not in TASKS, although its job was accepted")
    for task_id, state in states.items():
        told = tasks.get(task_id, {}).get("state")
        if state in FINAL_STATES and told != state:
            found.setdefault(task_id, f"TASKS says {told}, the ledger {state}")
    ends = Counter((r["task_id"], r["attempt"], r["outcome"], r["final"]) for r in results.values())
    for event in events:
        task_id, attempt = event["id"], event.get("attempt")
        if event["event"] == "placed" and f"{task_id}/{attempt}" not in assignments:
            found.setdefault(task_id, f"attempt {attempt} is not in ASSIGNMENTS")
        if event["event"] == "finished":
            end = (task_id, int(attempt or 0), event["outcome"], event.get("final") == "1")
            if end not in ends:
                found.setdefault(task_id, f"the end of attempt {attempt}, {event['outcome']}, is not in RESULTS")
    well = {r["task_id"] for r in results.values() if r["final"] and r["outcome"] == "succeeded"}
    for task_id in succeeded - well:
        found.setdefault(task_id, "has succeeded, and RESULTS does not say so")
    return found
