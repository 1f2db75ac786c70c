"""A pull that fails: what an engine reports of the registry, and an engine that goes away itself, are told apart."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cloudai.containers import validate_container
from cloudai.containers.errors import EngineUnavailable, ImageNotFound
from cloudai_workers.runners.base import Job, Reservation, StopHandle
from cloudai_workers.runners.docker_runner import DockerRunner

PROGRESS = {"status": "Pulling from team/x", "id": "v1"}
#: A piece of a stream that the connection breaks behind, and one that it breaks in.
BREAKS = None
BREAKS_INSIDE = "torn"


class FakeEngine(ThreadingHTTPServer):
    """Speaks as much of an engine's HTTP as a pull needs; it has no image. `pulls`: what each pull in turn streams."""

    daemon_threads = True

    def __init__(self, *pulls: list[object]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.pulls = list(pulls)
        self.pulled = 0
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeEngine

    def do_GET(self) -> None:
        self._say(200, {"ApiVersion": "1.41", "NCPU": 2, "CgroupDriver": "systemd"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "/images/create" not in self.path:
            self._say(404, {"message": "No such image: team/x:v1"})
            return
        engine = self.server
        steps = engine.pulls[min(engine.pulled, len(engine.pulls) - 1)]
        engine.pulled += 1
        self.close_connection = True
        if steps == [BREAKS]:
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for step in steps:
            if step is BREAKS:
                return
            piece = json.dumps(step).encode() + b"\r\n"
            if step == BREAKS_INSIDE:
                self.wfile.write(b"40\r\n" + piece)
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _say(self, status: int, answer: dict[str, object]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


JOB = Job(
    task_id="t1",
    attempt=1,
    node="n",
    spec=validate_container("team/x:v1", ["true"]),
    reservation=Reservation(1000, 64 * 1024),
)


@pytest.fixture(params=[[BREAKS], [PROGRESS, BREAKS], [PROGRESS, BREAKS_INSIDE]], ids=["at once", "between", "inside"])
def broken(request: pytest.FixtureRequest) -> list[object]:
    """What an engine streams that goes away in a pull."""
    return list(request.param)


def run(engine: FakeEngine, grace_s: float) -> None:
    with engine, closing(DockerRunner(node="n", url=engine.url, begin_grace_s=grace_s)) as runner:
        try:
            runner.run(JOB, StopHandle())
        finally:
            engine.shutdown()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_goes_away_in_a_pull_is_no_registry_problem(broken: list[object]) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        run(FakeEngine(broken), grace_s=0.0)
    assert "no engine has answered at" in str(caught.value)
    assert "registry" not in str(caught.value)


def test_an_engine_that_comes_back_is_asked_to_pull_again(broken: list[object]) -> None:
    engine = FakeEngine(broken, [PROGRESS, {"error": "manifest unknown"}])
    with pytest.raises(ImageNotFound, match="team/x:v1: manifest unknown"):
        run(engine, grace_s=60.0)
    assert engine.pulled == 2


def test_a_registry_that_cannot_be_reached_is_what_the_engine_reports() -> None:
    words = "Get http://registry/v2/: dial tcp 127.0.0.1:1: connect: connection refused"
    with pytest.raises(EngineUnavailable, match="pulling team/x:v1: the node cannot reach its registry"):
        run(FakeEngine([PROGRESS, {"error": words}]), grace_s=0.0)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK asks the address that it is given, whatever the machine's environment says."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
