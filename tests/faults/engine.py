"""A Docker engine of the campaign's own, so that it can be restarted without harm to anybody else's containers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from cloudai.demo.image import ensure_image

START_TIMEOUT_S = 60.0


def engine_problem() -> str:
    """Why no engine can be started here; "" where it can."""
    if os.geteuid() != 0:
        return "an engine of its own needs root"
    missing = [program for program in ("dockerd", "docker", "unshare") if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


class Engine:
    """dockerd with folders, socket and pid file of its own, without a bridge; containers outlive its restarts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.image = ""

    @property
    def url(self) -> str:
        return f"unix://{self._folder}/engine.sock"

    def start(self) -> None:
        """Start it and wait until it answers. RuntimeError with the end of its log when it does not."""
        log = self._folder / "engine.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [
                    # In a network of its own: `--bridge none` deletes the docker0 of the network that it runs in.
                    "unshare", "--net", "dockerd", "--data-root", str(self._folder / "data"),
                    "--exec-root", str(self._folder / "exec"),
                    "--host", self.url, "--pidfile", str(self._folder / "pid"), "--bridge", "none",
                    "--iptables=false", "--ip-forward=false", "--ip-masq=false", "--live-restore",
                ],
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while subprocess.run(["docker", "-H", self.url, "version"], capture_output=True).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the engine did not start:\n{log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.3)
        if not self.image:
            self.image = ensure_image(self.url)

    def stop(self) -> None:
        """End the engine; its containers run on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def crash(self) -> int:
        """End the engine and its containers at once, as when its machine goes down; returns how many processes."""
        listed = subprocess.run(["docker", "-H", self.url, "ps", "-q"], capture_output=True, text=True)
        of_jobs: list[int] = []
        if ids := listed.stdout.split():
            shown = subprocess.run(
                ["docker", "-H", self.url, "inspect", "--format", "{{.State.Pid}}", *ids],
                capture_output=True, text=True,
            )  # fmt: skip
            of_jobs = [int(pid) for pid in shown.stdout.split()]
        mark, own = os.fsencode(self._folder), []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                # Not our own calls of the client: dockerd, its containerd, and a shim for each container.
                if mark in (line := path.read_bytes()) and line.split(b"\0")[0] != b"docker":
                    own.append(int(path.parent.name))
        for pid in [*own, *of_jobs]:
            with contextlib.suppress(ProcessLookupError):
                if pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(30)
            self._process = None
        # What lies in memory is gone with it.
        exec_root = self._folder / "exec"
        for path in sorted(exec_root.rglob("*"), reverse=True):
            if path.is_mount():
                subprocess.run(["umount", "-lq", str(path)], capture_output=True)
        shutil.rmtree(exec_root, ignore_errors=True)
        (self._folder / "pid").unlink(missing_ok=True)
        return len(own) + len(of_jobs)

    def close(self) -> None:
        """End the containers too."""
        if self._process is not None:
            listed = subprocess.run(["docker", "-H", self.url, "ps", "-aq"], capture_output=True, text=True)
            if listed.stdout.split():
                subprocess.run(["docker", "-H", self.url, "rm", "-f", *listed.stdout.split()], capture_output=True)
        self.stop()
        for mount in ("data", "exec"):
            subprocess.run(["umount", "-q", str(self._folder / mount)], capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)
