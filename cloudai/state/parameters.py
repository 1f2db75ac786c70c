"""The parameters in force, versioned, in Redis (spec section 6); the versions before them, the pin, and the watch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from redis import Redis

from cloudai.names import Keys
from cloudai.scheduling.parameters import GAParams
from cloudai.state.scripts import Scripts

#: Earlier versions that stay in Redis, for a roll-back without the history.
PAST_KEPT = 10


@dataclass(frozen=True, slots=True)
class Published:
    """Parameters as they stand in Redis."""

    parameters: GAParams
    #: Where they came from: a file's name, "epoch", "cli".
    source: str
    #: Epoch seconds of the server.
    published: float


class ParameterStore:
    """Typed access to the parameters."""

    def __init__(self, client: Redis, keys: Keys, scripts: Scripts) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts

    def read(self) -> Published | None:
        """The parameters in force; None before the first were published. InvalidParameters if they cannot be read."""
        stored: Any = self._client.hgetall(self._keys.parameters)
        # A pin may stand there alone.
        if b"json" not in stored:
            return None
        parameters = GAParams.from_json(stored[b"json"].decode())
        return Published(
            replace(parameters, version=int(stored[b"version"])),
            stored[b"source"].decode(),
            float(stored[b"published"]),
        )

    def publish(
        self, parameters: GAParams, source: str, *, only_over: int | None = None, unasked: bool = False
    ) -> int | None:
        """Put parameters in force; returns their version.

        `only_over`: the version that must be in force now; None is returned when it is another. `unasked`: nobody
        asked for it (an epoch); None is returned while what is in force is pinned.
        """
        done, version = self._scripts.publish_parameters.run(
            self._client, self._keys.prefix, parameters.to_json(), source, "" if only_over is None else only_over,
            "1" if unasked else "", PAST_KEPT,
        )  # fmt: skip
        return int(version) if done else None

    def past(self) -> list[Published]:
        """The versions that were in force before, newest first; such as cannot be read are left out."""
        found: Any = self._client.lrange(self._keys.parameters_past, 0, PAST_KEPT - 1)
        versions = []
        for text in found:
            try:
                one = json.loads(text)
                parameters = replace(GAParams.from_json(one["json"]), version=int(one["version"]))
                versions.append(Published(parameters, str(one["source"]), float(one["published"])))
            except (ValueError, KeyError, TypeError):  # InvalidParameters is a ValueError too
                continue
        return versions

    def pin(self, by: str) -> None:
        """Keep what is in force: no epoch publishes, until `unpin`. People may."""
        self._client.hset(self._keys.parameters, "pinned", by)

    def unpin(self) -> bool:
        """Let epochs publish again. False: it was not pinned."""
        return bool(self._client.hdel(self._keys.parameters, "pinned"))

    def pinned(self) -> str | None:
        """Who has pinned what is in force; None: nobody."""
        by: Any = self._client.hget(self._keys.parameters, "pinned")
        return None if by is None else by.decode()

    def watch(self) -> dict[str, Any] | None:
        """What the optimiser keeps of the evolved genes that it published last; None: nothing."""
        text: Any = self._client.get(self._keys.parameters_watch)
        try:
            found = json.loads(text) if text else None
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def keep_watch(self, watch: Mapping[str, Any] | None) -> None:
        """Keep that, or forget it."""
        if watch is None:
            self._client.delete(self._keys.parameters_watch)
        else:
            self._client.set(self._keys.parameters_watch, json.dumps(watch, allow_nan=False))
