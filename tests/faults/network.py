"""Networks that can be cut: a forwarder in front of Redis, and a network namespace that reaches only the forwarder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading


class Forwarder:
    """Passes TCP connections on to a port of this machine, until it is frozen: then nothing passes."""

    def __init__(self, target_port: int, host: str = "127.0.0.1") -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server((host, 0))
        self._flows = threading.Event()
        self._flows.set()
        self._closed = False
        self.host, self.port = self._listener.getsockname()[:2]
        threading.Thread(target=self._accept, name="faults-forwarder", daemon=True).start()

    def freeze(self) -> None:
        """What is sent from now on arrives only after `thaw`."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def close(self) -> None:
        self._closed = True
        self._flows.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._flows.wait()
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for source, sink in ((near, far), (far, near)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        sink.close()


def namespace_problem() -> str:
    """Why no network namespace can be made here; "" where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    return "" if shutil.which("ip") else "the program ip is not installed"


class Namespace:
    """A network of its own with one wire to this machine.

    Raises:
        subprocess.CalledProcessError: the machine does not allow it.
    """

    def __init__(self) -> None:
        number = os.getpid() % 16000
        self.name = f"faults-{number}"
        self._wire = f"flt{number}h"
        inner = f"flt{number}n"
        net = f"10.213.{number // 64}"
        base = number % 64 * 4
        self.host = f"{net}.{base + 1}"
        try:
            self._ip("netns", "add", self.name)
            self._ip("link", "add", self._wire, "type", "veth", "peer", "name", inner, "netns", self.name)
            self._ip("addr", "add", f"{self.host}/30", "dev", self._wire)
            self._ip("link", "set", self._wire, "up")
            self._ip("-n", self.name, "addr", "add", f"{net}.{base + 2}/30", "dev", inner)
            self._ip("-n", self.name, "link", "set", inner, "up")
            self._ip("-n", self.name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError:
            self.close()
            raise

    @property
    def prefix(self) -> list[str]:
        """What is put before a command to run it inside."""
        return ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        self._ip("link", "set", self._wire, "down")

    def mend(self) -> None:
        self._ip("link", "set", self._wire, "up")

    def close(self) -> None:
        for command in (("link", "del", self._wire), ("netns", "del", self.name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                self._ip(*command)

    @staticmethod
    def _ip(*args: str) -> None:
        subprocess.run(["ip", *args], check=True, capture_output=True)
