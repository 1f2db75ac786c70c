"""From the submission of a container to its result, against the Docker SDK alone."""

from __future__ import annotations

import time

from cloudai.bench.conversation import BenchError, Child
from cloudai.bench.figures import Figure
from cloudai.bench.lab import Lab, cloudai_environment
from cloudai.bench.rounds import take_turns
from cloudai.demo.image import ensure_image

_COMMAND = ["sh", "-c", "echo done"]
_START_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.05


def time_ratio(lab: Lab) -> Figure:
    """Time of one container after the other, as a multiple of the bare engine's. Both without a network."""
    image = ensure_image("")
    with lab.server() as server:
        environment = cloudai_environment(server)
        node = cloudai_environment(
            server,
            node={"runner": "docker", "cpu": 2, "memory": "1GiB", "work_dir": str(lab.folder / "node")},
        )
        with (
            lab.child("cloudai.bench.bare_container", environment={}) as bare,
            lab.child("cloudai.bench.container_producer", environment=environment) as ours,
            lab.worker("cloudai", ("--node", "-c", "2"), node) as worker,
        ):
            deadline = time.monotonic() + _START_TIMEOUT_S
            while ours.ask("nodes") == 0:
                if time.monotonic() > deadline or not worker.is_running():
                    raise BenchError(f"the node did not join. The end of its log:\n{worker.log_end()}")
                time.sleep(_LOOK_EVERY_S)
            seen = take_turns(
                5 if lab.quick else 15, {"bare": lambda: _one(bare, image), "ours": lambda: _one(ours, image)}
            )
    return Figure(
        seen.time_ratio("ours", "bare"),
        f"create, start, wait, logs, remove by the Docker SDK: {seen.median_s('bare') * 1e3:.0f} ms; "
        f"apply_async to result: {seen.median_s('ours') * 1e3:.0f} ms",
    )


def _one(child: Child, image: str) -> float:
    return float(child.ask("run", image=image, command=_COMMAND))
