"""A registry of one image, real enough for an engine to pull from."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """Serves `team/busybox:v1`; `private/...` is denied, `slow/...` answers only when the registry closes."""

    def __init__(self, layer: bytes) -> None:
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(config),
                    "digest": digest(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                        "size": len(layer),
                        "digest": digest(layer),
                    }
                ],
            }
        ).encode()
        self.blobs = {digest(data): data for data in (config, layer)}
        self.manifest = manifest
        self.asked_slowly = threading.Event()
        self.closing = threading.Event()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                registry.answer(self)

            do_HEAD = do_GET  # noqa: N815 (the base class looks for this name)

            def log_message(self, *_):
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request) -> None:
        status, body, kind = (
            404,
            b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}',
            "application/json",
        )
        if request.path == "/v2/":
            status, body = 200, b"{}"
        elif request.path.startswith("/v2/private/"):
            status, body = 403, b'{"errors": [{"code": "DENIED", "message": "denied"}]}'
        elif request.path.startswith("/v2/slow/"):
            self.asked_slowly.set()
            self.closing.wait(60)
        elif request.path in (
            "/v2/team/busybox/manifests/v1",
            f"/v2/team/busybox/manifests/{digest(self.manifest)}",
        ):
            status, body, kind = 200, self.manifest, MANIFEST
        elif request.path.rpartition("/")[2] in self.blobs:
            status, body, kind = 200, self.blobs[request.path.rpartition("/")[2]], "application/octet-stream"
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        if kind == MANIFEST:
            request.send_header("Docker-Content-Digest", digest(body))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
