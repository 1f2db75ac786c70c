"""The optimiser's epochs in Redis: one at a time in a deployment, and the reports of the latest.

Fields of `epoch` (hash): token, holder, began and until (epoch seconds of the server; token and until while one runs).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis

from cloudai.names import Keys
from cloudai.state.scripts import Scripts

#: Reports that are kept.
REPORTS_KEPT = 100
#: An epoch that has not ended after so long is taken for dead, seconds. Should it live, it does no harm: it publishes
#: only over the version that it began with.
LEASE_S = 60.0


@dataclass(frozen=True, slots=True)
class Begin:
    """The answer to who wants to begin an epoch."""

    #: False: another one runs, or began too lately.
    begun: bool
    #: Server time, epoch seconds.
    now: float
    #: Why not; "" where it has begun.
    reason: str


class Epochs:
    """Typed access to the epochs' scripts."""

    def __init__(self, client: Redis, keys: Keys, scripts: Scripts) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts

    def begin(self, token: str, holder: str, *, gap_s: float = 0.0, lease_s: float = LEASE_S) -> Begin:
        """Begin an epoch unless one runs, or the last one began less than `gap_s` ago; whoever began must `end` it."""
        answer, now, began, who = (
            part.decode()
            for part in self._scripts.begin_epoch.run(
                self._client, self._keys.prefix, token, holder, lease_s, gap_s
            )
        )
        if answer == "begun":
            return Begin(True, float(now), "")
        ago = f"{float(now) - float(began):.0f} s ago"
        if answer == "running":
            return Begin(False, float(now), f"{who} runs one since {ago.removesuffix(' ago')}")
        return Begin(False, float(now), f"{who} began one {ago}, and they come every {gap_s:.0f} s at most")

    def end(self, token: str, outcome: str, report: Mapping[str, Any]) -> bool:
        """Keep the report of an epoch, which has ended. False: it had outlived its lease, another may have begun."""
        text = json.dumps(report, allow_nan=False, separators=(",", ":"))
        return bool(
            self._scripts.end_epoch.run(self._client, self._keys.prefix, token, outcome, text, REPORTS_KEPT)
        )

    def latest(self, limit: int = REPORTS_KEPT) -> list[dict[str, Any]]:
        """The latest reports, newest first. What cannot be read is left out."""
        found: Any = self._client.lrange(self._keys.epochs, 0, limit - 1)
        reports = []
        for text in found:
            try:
                report = json.loads(text)
            except ValueError:
                continue
            if isinstance(report, dict):
                reports.append(report)
        return reports
