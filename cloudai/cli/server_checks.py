"""What `doctor` looks at in the Redis that holds broker and state."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from typing import Any

from cloudai.cli.fleet_report import redis_report
from cloudai.cli.machine_checks import Check
from cloudai.cli.output import duration
from cloudai.deployment import Deployment
from cloudai.settings import Settings
from cloudai.state.events import FILLING

#: First version of Redis whose scripts and commands are used. Valkey began as 7.2.
_LEAST_VERSION = 7
#: Difference of the clocks from which explicit deadlines and logs begin to mislead, seconds.
_SKEW_WARNED_S = 1.0
#: How long the document store may take to answer, seconds.
_HISTORY_TIMEOUT_S = 1.0


def server_checks(deployment: Deployment) -> list[Check]:
    """Version, persistence, eviction, clock, what waits for the history. Raises redis.RedisError when the server does
    not answer.
    """
    server = redis_report(deployment)
    return [_version(server), _persistence(server), _eviction(server), _clock(deployment), _history(deployment)]


def history_check(settings: Settings) -> list[Check]:
    """The MongoDB of the history: needed by the control process only. Nothing where pymongo is not installed."""
    if importlib.util.find_spec("pymongo") is None:
        return []
    from cloudai.history.errors import HistoryError
    from cloudai.history.store import HistoryStore

    where = settings.optimiser
    with HistoryStore(where.mongo_url, where.database, timeout_s=_HISTORY_TIMEOUT_S) as store:
        try:
            store.ping()
        except HistoryError as error:
            found, _, remedy = str(error).rpartition(". ")
            return [Check("MongoDB", "warning", found, f"{remedy}; needed for the optimiser, not to run jobs")]
        return [Check("MongoDB", "ok", store.where)]


def _version(server: Mapping[str, Any]) -> Check:
    found = f"{server['server']} {server['version']} at {server['url']}"
    if int(server["version"].partition(".")[0]) < _LEAST_VERSION:
        return Check("Redis", "missing", found, f"install Redis {_LEAST_VERSION} or later, or Valkey")
    return Check("Redis", "ok", found)


def _persistence(server: Mapping[str, Any]) -> Check:
    if not server["appendonly"]:
        advice = "set `appendonly yes`: without it a restart of the server loses tasks"
        return Check("Redis appendonly", "warning", "off", advice)
    if not server["last_append_ok"]:
        return Check("Redis appendonly", "missing", "its last write failed", "look at the disk of the server")
    return Check("Redis appendonly", "ok", f"on, fsync {server['appendfsync'] or 'not known'}")


def _eviction(server: Mapping[str, Any]) -> Check:
    policy = server["maxmemory_policy"]
    if policy is None:
        advice = "make sure that it is noeviction: else a full server drops tasks"
        return Check(
            "Redis maxmemory-policy",
            "warning",
            f"not known: CONFIG is refused ({server['config_refused']})",
            advice,
        )
    if policy != "noeviction":
        advice = "set `maxmemory-policy noeviction`: else a full server drops tasks"
        return Check("Redis maxmemory-policy", "missing", policy, advice)
    return Check("Redis maxmemory-policy", "ok", policy)


def _clock(deployment: Deployment) -> Check:
    before = time.time()
    whole, micro = deployment.client.time()
    after = time.time()
    # The server read its clock somewhere between the two; what cannot be blamed on the way is skew.
    server = whole + micro / 1e6
    skew = max(server - after, before - server, 0.0)
    if skew > _SKEW_WARNED_S:
        advice = "let both machines keep their time (NTP)"
        return Check("clock", "warning", f"{duration(skew)} apart from the server's", advice)
    return Check("clock", "ok", f"within {duration(max(skew, after - before))} of the server's")


def _history(deployment: Deployment) -> Check:
    progress, most = deployment.events.progress(), deployment.settings.limits.events_maxlen
    found = f"{progress.waiting} events wait to be recorded"
    if progress.lost:
        found += f", {progress.lost} were dropped unrecorded"
    remedy = "start MongoDB and the control process; the log of the latter says what it lacks (docs/history.md)"
    if progress.dropping:
        return Check("history", "warning", found, f"{remedy}. More are lost until then: {most} is all that is kept")
    if progress.waiting >= FILLING * most:
        return Check("history", "warning", found, f"{remedy}. At {most} (limits.events_maxlen) the oldest are lost")
    return Check("history", "ok", found)
