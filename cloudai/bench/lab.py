"""What every measurement needs: a folder, servers, and processes with a clean environment."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudai.bench.conversation import Child
from cloudai.embedded import EmbeddedValkey
from cloudai.node_process import NodeProcess
from cloudai.settings.sources import variable_name

#: How old telemetry may get and how silent a node may be, seconds: nothing times out while it is measured.
PATIENCE_S = 3000

_PATIENT: dict[str, dict[str, Any]] = {
    "scheduling": {"staleness_s": PATIENCE_S},
    "node": {"heartbeat_timeout_s": PATIENCE_S, "lease_s": 2 * PATIENCE_S},
}

#: Settings of numpy's linear algebra for an older processor, which some environments carry: they slow it.
_SPOILING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class Lab:
    """The place where a run measures.

    `quick`: fewer rounds, rougher figures. `traces`: folder of logs of jobs to replay; None: there is none.
    """

    def __init__(self, folder: Path, *, quick: bool = False, traces: Path | None = None) -> None:
        self.folder = folder
        self.quick = quick
        self.traces = traces
        self._made = 0

    def server(self) -> EmbeddedValkey:
        """A fresh Valkey; all have the same settings. It starts and ends with a `with` block."""
        return EmbeddedValkey(self._new("valkey"))

    def child(self, module: str, *arguments: str, environment: Mapping[str, str]) -> Child:
        """A process that serves questions (conversation.py)."""
        return Child(module, arguments, self._environment(environment), self._new("child").with_suffix(".log"))

    def plain_producer(self, server: EmbeddedValkey) -> Child:
        """A process that submits by plain Celery (producer.py)."""
        return self.child("cloudai.bench.producer", "cloudai.bench.plain_app", environment=plain_environment(server))

    def cloudai_producer(self, server: EmbeddedValkey) -> Child:
        """A process that submits by CloudAI (producer.py)."""
        return self.child(
            "cloudai.bench.producer", "cloudai.bench.cloudai_app", environment=cloudai_environment(server)
        )

    @contextmanager
    def worker(self, app: str, options: Sequence[str], environment: Mapping[str, str]) -> Iterator[NodeProcess]:
        """A Celery worker of an application; killed at the end, for nothing of it is to be kept."""
        log_path = self._new("worker").with_suffix(".log")
        command = [sys.executable, "-m", "celery", "-A", app, "worker", *options]
        process = NodeProcess(app, command, self._environment(environment), log_path)
        try:
            yield process
        finally:
            process.end()

    def _new(self, what: str) -> Path:
        self._made += 1
        return self.folder / f"{what}-{self._made}"

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        # Nor the user's own settings: the figures are those of the defaults.
        kept = {k: v for k, v in os.environ.items() if k not in _SPOILING and not k.startswith("CLOUDAI_")}
        return {**kept, **more}


def plain_environment(server: EmbeddedValkey) -> dict[str, str]:
    """What plain_app reads."""
    return {"BENCH_URL": server.url}


def cloudai_environment(server: EmbeddedValkey, **sections: Mapping[str, Any]) -> dict[str, str]:
    """Settings for a process of CloudAI's, as environment variables; `sections` win over patient timers."""
    merged: dict[str, dict[str, Any]] = {"redis": {"url": server.url}}
    for layer in (_PATIENT, sections):
        for section, values in layer.items():
            merged.setdefault(section, {}).update(values)
    return {
        variable_name(section, key): value if isinstance(value, str) else json.dumps(value)
        for section, values in merged.items()
        for key, value in values.items()
    }
