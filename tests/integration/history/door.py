"""A door before a MongoDB server: it lets everything through, nothing, or nothing that writes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import bson

#: length, request id, response to, operation code of every message.
_HEADER = struct.Struct("<iiii")
_OP_MSG = 2013
_WRITES = frozenset({"insert", "update", "delete", "createIndexes", "collMod", "findAndModify"})


class Door:
    """Listens on a port of its own and speaks for the server behind it."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._shut = False
        self._read_only = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def open(self) -> None:
        """The server answers as it would."""
        self._shut = self._read_only = False

    def shut(self) -> None:
        """The server is away."""
        self._shut = True
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def forbid_writes(self) -> None:
        """The server answers as to a user with the role `read`."""
        self._read_only = True

    def close(self) -> None:
        self.shut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._shut:
                client.close()
                continue
            server = socket.create_connection(self._server)
            with self._lock:
                self._connections |= {client, server}
            threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                head = _exactly(client, _HEADER.size)
                length, request, _, operation = _HEADER.unpack(head)
                body = _exactly(client, length - _HEADER.size)
                if self._read_only and operation == _OP_MSG and _command(body) in _WRITES:
                    client.sendall(_refusal(request))
                else:
                    server.sendall(head + body)
        self._end(client, server)

    def _pump(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                client.sendall(data)
        self._end(client, server)

    def _end(self, *connections: socket.socket) -> None:
        with self._lock:
            self._connections -= set(connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _command(body: bytes) -> str:
    """Name of a message's command: the first field of its first document, behind flags and kind."""
    begin = 5
    size = struct.unpack_from("<i", body, begin)[0]
    return next(iter(bson.decode(body[begin : begin + size])), "")


def _refusal(request: int) -> bytes:
    reply = bson.encode(
        {"ok": 0.0, "errmsg": "not authorized on history to execute command", "code": 13, "codeName": "Unauthorized"}
    )
    body = struct.pack("<iB", 0, 0) + reply
    return _HEADER.pack(_HEADER.size + len(body), 1, request, _OP_MSG) + body
