"""Traces that are made up, for a first try and for tests: the same one in every run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cloudai_beat.simulation.workload import Job, Trace, trace_of

#: Jobs of a synthetic trace.
JOBS = 6000

#: name -> what it is
SYNTHETIC = {
    "burst": "crowds of short jobs with quiet between them",
    "steady": "arrivals one by one, as a service has them",
    "mixed": "all six types, day and night, long and short",
}

_SEED = 20_261_128


class _Shape(NamedTuple):
    """What a synthetic job may be. Run times are lognormal about the family's median."""

    #: relative frequency
    share: float
    #: cores, one of them
    cpu: tuple[float, ...]
    #: GiB, one of them
    memory_gib: tuple[float, ...]
    #: devices, one of them
    gpu: tuple[float, ...]
    #: median of the kind, s
    median_s: float
    #: scatter of one family's run times (sigma of the logarithm)
    sigma: float
    #: how many families there are of it
    families: int


_LIGHT = _Shape(0.45, (0.5, 1, 2), (0.5, 1, 2), (0,), 8, 0.35, 12)
_HEAVY = _Shape(0.18, (6, 8), (2, 4), (0,), 40, 0.4, 6)
_MEMORY = _Shape(0.10, (1, 2), (12, 24), (0,), 60, 0.4, 4)
_INFERENCE = _Shape(0.17, (1, 2), (4,), (0.5, 1), 12, 0.25, 6)
_TRAINING = _Shape(0.05, (8,), (16,), (4,), 240, 0.4, 3)
_UNSAID = _Shape(0.05, (0,), (0,), (0,), 15, 0.5, 2)

_SHAPES = {
    "burst": (_LIGHT, _HEAVY),
    "steady": (_LIGHT, _HEAVY, _INFERENCE),
    "mixed": (_LIGHT, _HEAVY, _MEMORY, _INFERENCE, _TRAINING, _UNSAID),
}


def synthetic_trace(kind: str, jobs: int = JOBS) -> Trace:
    """The synthetic trace of that kind, a key of SYNTHETIC."""
    rng = np.random.default_rng((_SEED, list(SYNTHETIC).index(kind)))
    gaps = rng.exponential(1.0, jobs)
    if kind == "burst":
        # A crowd of some two hundred jobs within a minute, then quiet.
        gaps = np.where(rng.random(jobs) < 1 / 200, gaps * 600, gaps * 0.3)
    elif kind == "mixed":
        # The rate of a day swings by a factor of four about its mean; six of them in the trace.
        gaps *= 2.0 ** np.sin(np.linspace(0, 12 * np.pi, jobs))
    arrivals = np.cumsum(gaps)
    shapes = _SHAPES[kind]
    share = np.array([shape.share for shape in shapes])
    drawn = rng.choice(len(shapes), jobs, p=share / share.sum())
    return trace_of(f"synthetic:{kind}", _jobs(rng, shapes, drawn, arrivals))


def _jobs(rng: np.random.Generator, shapes: tuple[_Shape, ...], drawn: object, arrivals: object) -> list[Job]:
    # Each family has a size and a median of its own, about those of its kind.
    families = [
        [
            (
                rng.choice(shape.cpu),
                rng.choice(shape.memory_gib),
                rng.choice(shape.gpu),
                shape.median_s * rng.lognormal(0, 0.5),
            )
            for _ in range(shape.families)
        ]
        for shape in shapes
    ]
    jobs = []
    for index, arrival in zip(np.asarray(drawn).tolist(), np.asarray(arrivals).tolist(), strict=True):
        number = int(rng.integers(shapes[index].families))
        cpu, memory_gib, gpu, median_s = families[index][number]
        jobs.append(
            Job(
                line=0,
                arrival_s=arrival,
                runtime_s=float(median_s * rng.lognormal(0, shapes[index].sigma)),
                cpu=float(cpu),
                memory_gib=float(memory_gib),
                gpu=float(gpu),
                user=f"u{int(rng.integers(20))}",
                family=f"{index}-{number}",
            )
        )
    return jobs
