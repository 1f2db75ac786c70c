"""A socket before the engine's own: shut, it is as if the engine were away, for those who are connected too."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path


class EngineDoor:
    """Shut at first."""

    def __init__(self, path: Path, engine: str) -> None:
        self._path = path
        self._engine = engine
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"unix://{self._path}"

    def open(self) -> None:
        """The engine answers."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """The engine is away."""
        with self._lock:
            listener, self._listener = self._listener, None
            connections = set(self._connections)
        if listener is None:
            return
        self._path.unlink()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client, listener), daemon=True).start()

    def _serve(self, client: socket.socket, listener: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as engine, contextlib.suppress(OSError):
            with self._lock:
                if listener is not self._listener:
                    return
                self._connections.add(client)
            engine.connect(self._engine)
            other = {client: engine, engine: client}
            while True:
                for source in select.select(list(other), [], [])[0]:
                    data = source.recv(65_536)
                    if not data:
                        self._connections.discard(client)
                        return
                    other[source].sendall(data)
