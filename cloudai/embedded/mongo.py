"""An embedded document store, MongoDB's wire protocol over SQLite: history for `cloudai up` and tests."""

from __future__ import annotations

import importlib.util
import sys

from cloudai.embedded.server import EmbeddedServer, EmbeddedServerError


class EmbeddedMongo(EmbeddedServer):
    """NX-27017: plain finds, single-document updates and bulk writes work; pipeline updates do not."""

    title = "mongo"
    # A client's monitor holds a request open for 10 s, and the server waits for it. Every write that it
    # acknowledged is in SQLite's log by then, so killing it loses nothing.
    grace_s = 1.0

    @property
    def url(self) -> str:
        """The server, for pymongo."""
        return f"mongodb://127.0.0.1:{self.port}"

    def _command(self, port: int) -> list[str]:
        if importlib.util.find_spec("nx_27017") is None:
            raise EmbeddedServerError(
                "nx-27017 is not installed. Install the embedded servers with `pip install 'cloudai[local]'` "
                "or set optimiser.mongo_url to a server of your own."
            )
        # Left behind by a server that was killed; it refuses to start if that pid is in use again.
        pid_file = self.folder / "mongo.pid"
        pid_file.unlink(missing_ok=True)
        data = self.folder / "databases"
        data.mkdir(exist_ok=True)
        return [
            sys.executable,
            "-c",
            "from nx_27017 import main; main()",
            "--host=127.0.0.1",
            f"--port={port}",
            f"--data-dir={data}",
            f"--pid-file={pid_file}",
            f"--log-file={self.folder / 'mongo-requests.log'}",
        ]

    def _answers(self) -> bool:
        try:
            from pymongo import MongoClient
            from pymongo.errors import PyMongoError
        except ImportError as error:
            raise EmbeddedServerError(
                "pymongo is missing: `pip install 'cloudai[beat]'` brings it."
            ) from error
        client: MongoClient[dict[str, object]] = MongoClient(self.url, serverSelectionTimeoutMS=500)
        try:
            # The pid, lest another server that holds the port answers for ours.
            return client.admin.command("serverStatus").get("pid") == self._pid
        except PyMongoError:
            return False
        finally:
            client.close()
