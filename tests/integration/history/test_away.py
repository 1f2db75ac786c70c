"""MongoDB is away for long: nothing is lost, what places and ends tasks does not pay, and the operator is told."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from cloudai.cli.machine_checks import Check
from cloudai.cli.server_checks import server_checks
from cloudai.embedded import EmbeddedValkey
from cloudai.history.collections import ASSIGNMENTS, RESULTS, TASKS
from cloudai.history.recorder import Recorded

from ..state.conftest import Lab, lab_settings
from .conftest import Jobs
from .door import Door

#: How many tasks run while it is away: a few batches of events. An hour of 480 tasks a minute, which takes the embedded
#: store minutes to take in, is CLOUDAI_TEST_AWAY_TASKS=28800.
TASKS_MEANWHILE = int(os.environ.get("CLOUDAI_TEST_AWAY_TASKS", "1000"))
#: Fewest events that the stream may be told to hold.
BOUND = 1000

#: The events that the stream has got since ARGV[2], again for other tasks, ARGV[1] times.
_AGAIN = """
local stream = KEYS[1] .. 'events'
local entries = redis.call('XRANGE', stream, '(' .. ARGV[2], '+')
for i = 1, tonumber(ARGV[1]) do
  for _, entry in ipairs(entries) do
    local fields = {}
    for k, value in ipairs(entry[2]) do
      if k % 2 == 0 and entry[2][k - 1] == 'id' then value = value .. '-' .. i end
      fields[k] = value
    end
    redis.call('XADD', stream, '*', unpack(fields))
  end
end
return #entries
"""


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A server that nobody else talks to, for its counters."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def bounded(own_server: EmbeddedValkey, store: Any) -> Iterator[Jobs]:
    """A deployment whose stream is soon full."""
    settings = lab_settings(own_server.url)
    limits = settings.limits.model_copy(update={"events_maxlen": BOUND})
    lab = Lab(settings.model_copy(update={"limits": limits}))
    lab.client.flushall()
    lab.join("n1")
    yield Jobs(lab, store)
    lab.client.close()


def doctor(jobs: Jobs) -> Check:
    """What `cloudai doctor` says of the history."""
    (check,) = (check for check in server_checks(jobs.deployment) if check.name == "history")
    return check


def test_whatever_happened_meanwhile_is_recorded_once(jobs: Jobs, door: Door, database: Any) -> None:
    jobs.record()
    client, keys = jobs.deployment.client, jobs.deployment.keys
    begun = jobs.deployment.events.unrecorded(0).position
    door.shut()
    jobs.complete("good")
    jobs.complete("bad", outcome="failed", runtime_s=None)
    assert jobs.submit("waits") == "waiting"
    jobs.lab.ledger.cancel("waits")
    jobs.lab.settle_all()
    copies = TASKS_MEANWHILE // 3
    events = client.eval(_AGAIN, 1, keys.prefix, copies, begun) * (copies + 1)
    recorded = jobs.recorder.record_once()
    assert (recorded.behind, recorded.events, recorded.lost) == (events, 0, 0)
    door.open()
    jobs.catch_up()
    # Two recorders at once, as when the control process runs twice.
    done: list[Recorded] = []

    def record() -> None:
        recorder = jobs.new_recorder()
        while (recorded := recorder.record_once()).behind or recorded.events:
            done.append(recorded)

    threads = [threading.Thread(target=record) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(r.problem, r.lost, r.skipped) for r in done] == [("", 0, {})] * len(done)
    progress = jobs.deployment.events.progress()
    assert (progress.waiting, progress.lost) == (0, 0)
    ids = {f"{name}{copy}" for name in ("good", "bad", "waits") for copy in ("", *(f"-{i + 1}" for i in range(copies)))}
    outcomes = Counter((d["task_id"], d["outcome"]) for d in database[RESULTS].find())
    fate = {"good": "succeeded", "bad": "failed", "waits": "cancelled"}
    assert outcomes == Counter({(task_id, fate[task_id.partition("-")[0]]): 1 for task_id in ids})
    assert {d["_id"]: d["state"] for d in database[TASKS].find()} == {i: fate[i.partition("-")[0]] for i in ids}
    assert database[ASSIGNMENTS].count_documents({}) == 2 * (copies + 1)


def test_what_places_and_ends_tasks_does_not_pay_for_it(bounded: Jobs, door: Door) -> None:
    client, ids = bounded.deployment.client, itertools.count()

    def commands() -> dict[str, int]:
        """Every command that the server carried out for a few tasks, those of scripts too."""
        client.config_resetstat()
        for _ in range(10):
            bounded.complete(f"counted-{next(ids)}")
        found = client.info("commandstats")
        return {name: counted["calls"] for name, counted in found.items() if not name.startswith("cmdstat_config")}

    for i in range(40):
        bounded.complete(f"first-{i}")
    bounded.record()
    up = commands()
    assert up["cmdstat_evalsha"] == 30
    door.shut()
    assert bounded.recorder.record_once().problem
    assert commands() == up
    for i in range(BOUND // 4):
        bounded.complete(f"more-{i}")
    assert bounded.deployment.events.unrecorded(0).dropped
    assert commands() == up


def test_a_stream_that_fills_up_is_told_before_and_when_it_does(
    bounded: Jobs, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    events = bounded.deployment.events
    bounded.record()
    assert doctor(bounded).status == "ok"
    door.shut()
    told = {"history-away": 1, "events-filling": 0, "events-dropping": 0, "events-lost": 0}

    def logged() -> dict[str, int]:
        bounded.recorder.record_once()
        return {event: caplog.text.count(f"{event} ") for event in told}

    with caplog.at_level(logging.WARNING):
        bounded.complete("t1")
        assert logged() == told
        for i in range(BOUND // 8):
            bounded.complete(f"a{i}")
        told["events-filling"] = 1
        assert logged() == told
        check = doctor(bounded)
        assert (check.status, events.progress().dropping) == ("warning", 0)
        assert "limits.events_maxlen" in check.advice
        for i in range(BOUND // 4):
            bounded.complete(f"b{i}")
        told["events-dropping"] = 1
        assert logged() == told
        lost = events.progress().lost
        assert lost == events.progress().dropping > 0
        check = doctor(bounded)
        assert check.status == "warning"
        assert f"{lost} were dropped unrecorded" in check.found
        door.open()
        bounded.catch_up()
        bounded.record()
        told["events-lost"] = 1
        assert logged() == told
    progress = events.progress()
    assert (progress.waiting, progress.lost, progress.dropping) == (0, lost, 0)
    assert doctor(bounded).status == "ok"
    # What is left of it is whole, and the tasks never noticed.
    assert bounded.store.task(f"b{BOUND // 4 - 1}")["state"] == "succeeded"
    assert bounded.lab.free("n1")[0] == 4000
