"""The fleet as the run sees it: a Valkey, and processes full of simulated nodes."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cloudai.bench.conversation import Child
from cloudai.bench.lab import Lab
from cloudai.embedded import EmbeddedValkey

from .plan import Plan

_ROOT = Path(__file__).resolve().parents[2]
#: Nodes that join in one question, so that the answer comes in time on any machine.
_JOIN_TOGETHER = 100


class Fleet:
    """Starts and ends with a `with` block. Nodes are named by their places in the plan's fleet."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self._folder = folder
        self._lab = Lab(folder)
        self._ends = ExitStack()
        self.server: EmbeddedValkey
        self._shards: list[Child] = []
        #: One question at a time to each.
        self._locks = [threading.Lock() for _ in range(plan.shards)]

    def __enter__(self) -> Self:
        self.server = self._ends.enter_context(self._lab.server())
        text = json.dumps(asdict(self.plan))
        try:
            for _ in range(self.plan.shards):
                child = self._lab.child(
                    "tests.scale.shard", text, self.server.url, environment={"PYTHONPATH": str(_ROOT)}
                )
                self._shards.append(self._ends.enter_context(child))
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def join(self, places: Iterable[int]) -> None:
        """Let these join."""
        places = list(places)
        for begin in range(0, len(places), _JOIN_TOGETHER):
            self._each("join", places[begin : begin + _JOIN_TOGETHER])

    def lose_power(self, places: Iterable[int]) -> None:
        """These fall silent for good."""
        self._each("lose_power", places)

    def cut_off(self, places: Iterable[int]) -> None:
        """These cannot reach Redis any more."""
        self._each("cut_off", places)

    def reconnect(self, places: Iterable[int]) -> None:
        """They can again."""
        self._each("reconnect", places)

    def sign_off(self, places: Iterable[int]) -> list[int]:
        """Those of them that had nothing left to do, and leave."""
        return [place for left in self._each("sign_off", places) for place in left]

    def running(self) -> tuple[int, float]:
        """Jobs that run, and how late a heartbeat was at worst since the last call, seconds."""
        answers = self._all(lambda shard: shard.ask("state"))
        return sum(int(a["running"]) for a in answers), max(float(a["late_s"]) for a in answers)

    def tell(self) -> tuple[list[list[Any]], list[str], dict[str, list[float]]]:
        """The runs that the nodes saw, what they completed, and the seconds of their sweeps."""
        runs: list[list[Any]] = []
        completed: list[str] = []
        times: dict[str, list[float]] = defaultdict(list)
        for i, shard in enumerate(self._shards):
            path = self._folder / f"seen-{i}.json"
            for what, seconds in shard.ask("tell", path=str(path)).items():
                times[what] += seconds
            seen = json.loads(path.read_text(encoding="utf-8"))
            runs += seen["runs"]
            completed += seen["completed"]
        return runs, completed, dict(times)

    def _each(self, what: str, places: Iterable[int]) -> list[Any]:
        by_shard: dict[int, list[int]] = defaultdict(list)
        for place in places:
            by_shard[place % self.plan.shards].append(place)
        return self._all(
            lambda shard: shard.ask(what, places=by_shard[self._shards.index(shard)]),
            only=[self._shards[i] for i in by_shard],
        )

    def _all(self, ask: Callable[[Child], Any], only: list[Child] | None = None) -> list[Any]:
        """Ask several at once; raises what one of them raised."""
        shards = self._shards if only is None else only
        answers: dict[int, Any] = {}
        errors: list[BaseException] = []

        def one(i: int) -> None:
            try:
                with self._locks[self._shards.index(shards[i])]:
                    answers[i] = ask(shards[i])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(shards))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [answers[i] for i in range(len(shards))]
