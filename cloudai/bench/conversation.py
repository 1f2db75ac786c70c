"""A process that measures, and how it is talked to: a JSON line to its standard input, one from its output.

References and candidates never share a process: an application of CloudAI changes kombu's transports for all
of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cloudai.scheduling.errors import CloudAIError

#: Longest time for one answer, seconds.
ANSWER_TIMEOUT_S = 120.0
#: Time to end after its input was closed, seconds.
_END_TIMEOUT_S = 10.0
_LOG_LINES_SHOWN = 15


class BenchError(CloudAIError):
    """A row cannot be measured; the message says why."""


class Child:
    """A Python process that runs `serve` in its module. Ends with the `with` block, or with this process."""

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log_path: Path) -> None:
        self._module = module
        self._log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                cwd=log_path.parent,
                text=True,
            )

    def ask(self, what: str, **arguments: Any) -> Any:
        """Let the process do something and return its answer.

        Raises:
            BenchError: it failed; or it ended, or did not answer within 120 s, with the end of its log.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps({"ask": what, **arguments}) + "\n")
            self._process.stdin.flush()
            # One answer to one question, so nothing can be waiting in the buffer of the text stream.
            if select.select([self._process.stdout], [], [], ANSWER_TIMEOUT_S)[0]:
                line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            ended = self._process.poll() is not None
            raise BenchError(
                f"{self._module}: {what}: it {'has ended' if ended else 'did not answer in time'}. "
                f"The end of its log:\n{self._log_end()}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self._module}: {what}: {answer['error']}")
        return answer["value"]

    def _log_end(self) -> str:
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES_SHOWN:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
    """Answer questions until the input ends. What a handler raises is the answer's `error`."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # What libraries print must not be taken for an answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with answers:
        for line in sys.stdin:
            question = json.loads(line)
            try:
                answer = {"value": handlers[question.pop("ask")](**question)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
