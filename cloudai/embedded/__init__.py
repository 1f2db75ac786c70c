"""Real servers that end with the process that started them: for `cloudai up`, the demo and the tests."""

from __future__ import annotations

from cloudai.embedded.mongo import EmbeddedMongo
from cloudai.embedded.server import EmbeddedServer, EmbeddedServerError
from cloudai.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedMongo", "EmbeddedServer", "EmbeddedServerError", "EmbeddedValkey"]
