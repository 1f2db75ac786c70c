"""The parameters in force, versioned, in Redis (spec section 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from redis import Redis

from cloudai.names import Keys
from cloudai.scheduling.parameters import GAParams
from cloudai.state.scripts import Scripts


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
        if not stored:
            return None
        parameters = GAParams.from_json(stored[b"json"].decode())
        return Published(
            replace(parameters, version=int(stored[b"version"])),
            stored[b"source"].decode(),
            float(stored[b"published"]),
        )

    def publish(self, parameters: GAParams, source: str, *, only_over: int | None = None) -> int | None:
        """Put parameters in force; returns their version.

        `only_over`: the version that must be in force now; None is returned when it is another.
        """
        done, version = self._scripts.publish_parameters.run(
            self._client, self._keys.prefix, parameters.to_json(), source, "" if only_over is None else only_over
        )
        return int(version) if done else None
