"""The state of a replay: record arrays that the compiled loop reads and changes, and their first values.

Records (one row a task, a node, a pair ...) keep the compiled functions' arguments few and their code readable, and
what belongs together lies together in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloudai.scheduling.parameters import GENES
from cloudai.scheduling.task_types import TASK_TYPES
from cloudai.scheduling.units import KIB_PER_GIB, MILLI

from .parameters import ReplayParameters
from .workload import TYPES, Bools, Environment, Fleet, Floats, Ints, Workload

if TYPE_CHECKING:
    from .engine import Options

#: A record array; its fields are the names below.
Records = Any
Words = NDArray[np.uint64]


def _record(floats: str, ints: str) -> np.dtype[Any]:
    return np.dtype([(name, np.float64) for name in floats.split()] + [(name, np.int64) for name in ints.split()])


#: A task: what was given (see Workload; `shape`, `place`: see Shapes), and what became of it. `device`: the GPU of
#: which it took a share; `hold`: node kept for it while it waits; `queue_next`: behind it in its node's queue;
#: `run_next`, `run_previous`: beside it among those that run on its node. -1: none.
TASK = _record(
    "arrival deadline limit runtime noise start finish predicted load_at_start",
    "cpu memory gpu storage constraint kind family shape place node devices hold queue_next run_next run_previous",
)
#: A node: what is free of it, its features, capacity; `used`: cores in use, thousandths; `held_for`: task that it is
#: kept for; `overload`: integral of max(0, load - 1) up to `overload_at`, s; its queue, and `queued_work`: predicted
#: runtimes of the queued, each times the largest share of the node that it asks for, s.
NODE = _record(
    "penalty pressure overload overload_at queued_work queued_share",
    "cpu memory slots storage gpu largest_share whole_gpus held_for used running cpu_capacity memory_capacity"
    " gpu_capacity storage_capacity slots_capacity queue_first queue_last queued run_first",
)
#: A (type, node) pair: s_cj as given; true factor; affinity; runs, sum of log(runtime / tau), misses.
PAIR = _record("prior factor affinity count sum missed", "")
#: What is learned of a runtime (scheduling/learning.py, Learned).
LEARNED = _record("tau variance", "samples run")
#: A type: its lambda, b_c, true use of cores; of log(runtime / tau): runs, sum, squares, and what follows, mean and
#: variance; misses, and their share.
KIND = _record("rate base cpu_use count sum square centre spread missed usual", "")
#: A shape of request: its first place, a task of it; how many wait, bounds of their places, where it stands in the list
#: of shapes that have any (-1: not there), the dispatch in which it was last found not to fit, and a place before
#: which no deadline is ahead.
SHAPE = _record("", "begin example waiting lowest highest listed_at blocked ahead")
PLACE = _record("deadline", "task")
END = _record("time", "task")
#: Counters and settings of the run; `oldest`: no task before it waits; `position`: Round-Robin's; `random`: state of
#: policies that choose by chance.
STATE = _record(
    "outlier_sigma aged_after starving_after next_aged next_starving",
    "running waiting listed dirty decisions position oldest dispatches random aged_share learn_tau learn_speed kept"
    " outlier_after follow_after adaptive family_after has_pressure least_cpu stamp",
)
GENE = _record(" ".join(GENES), "")


class World(NamedTuple):
    """Everything that a replay works on."""

    #: (m,) TASK
    tasks: Records
    #: (n,) NODE
    nodes: Records
    #: (6, n) PAIR
    pairs: Records
    #: (n,) what a score is made of, one array each, so that all nodes are scored in one sweep. Free cores, thousandths,
    #: -1 where no slot is free; free memory, KiB
    room_cpu: Ints
    room_memory: Ints
    #: (n,) 1 over the cores, GiB and devices that are free; 0: none is
    inv_cpu: Floats
    inv_memory: Floats
    inv_gpu: Floats
    #: (n,) L
    load: Floats
    #: (6, n) s_cj as used; penalty - affinity
    speed: Floats
    offset: Floats
    #: (n,) scratch: the final risk of one task
    scores: Floats
    #: (6,) KIND
    kinds: Records
    #: LEARNED: (6,) of each type; (6,) of runtime over the time from arrival to deadline; (families, 6) of each type's
    #: share of a family
    types: Records
    shares: Records
    families: Records
    #: (n, d) free share of each device, thousandths
    devices: Ints
    #: (n, d) task that has the whole device, -1: none
    holders: Ints
    #: (c, n)
    allowed: Bools
    #: (s,) SHAPE
    shapes: Records
    #: (m,) PLACE
    places: Records
    #: heap of END: the running tasks by their ends
    heap: Records
    #: waiting tasks as bits: by place, and by task (so by age)
    bits: Words
    age_bits: Words
    #: shapes that have waiting tasks
    listed: Ints
    #: nodes whose room has not been offered yet
    dirty: Ints
    #: (1,) STATE
    state: Records
    #: (1,) GENE
    genes: Records
    #: (4,) true weights of the contention
    contention: Floats


def world(
    workload: Workload, fleet: Fleet, environment: Environment, parameters: ReplayParameters, options: Options
) -> World:
    """The state before the first arrival."""
    count, shapes, n, f = len(workload), len(workload.shapes.example), len(fleet), fleet
    return World(
        tasks=_tasks(workload, environment),
        nodes=_nodes(fleet, environment, parameters),
        pairs=_pairs(environment, parameters),
        room_cpu=np.where(f.slots > 0, f.cpu_milli, -1),
        room_memory=f.memory_kib.copy(),
        inv_cpu=_inverse(f.cpu_milli / MILLI),
        inv_memory=_inverse(f.memory_kib / KIB_PER_GIB),
        inv_gpu=_inverse(f.gpus.astype(np.float64)),
        load=np.zeros(n) if environment.pressure is None else environment.pressure.astype(np.float64),
        speed=np.array(parameters.speed, dtype=np.float64, order="C"),
        offset=np.ascontiguousarray(parameters.penalty - parameters.affinity),
        scores=np.empty(n),
        kinds=_kinds(environment, parameters, options),
        types=_filled(LEARNED, TYPES, tau=options.first_tau),
        shares=np.zeros(TYPES, dtype=LEARNED),
        families=np.zeros((max(workload.families, 1), TYPES), dtype=LEARNED),
        devices=np.where(np.arange(max(1, int(fleet.gpus.max()))) < fleet.gpus[:, None], MILLI, 0).astype(np.int64),
        holders=np.full((n, max(1, int(fleet.gpus.max()))), -1, dtype=np.int64),
        allowed=fleet.allowed,
        shapes=_shapes(workload),
        places=_filled(PLACE, count, deadline=workload.shapes.deadline, task=workload.shapes.task),
        heap=np.zeros(count + 1, dtype=END),
        bits=np.zeros(count // 64 + 2, dtype=np.uint64),
        age_bits=np.zeros(count // 64 + 2, dtype=np.uint64),
        listed=np.zeros(shapes, dtype=np.int64),
        dirty=np.zeros(2 * n + 1, dtype=np.int64),
        state=_state(workload, environment, options),
        genes=np.array(parameters.genes, dtype=np.float64).view(GENE),
        contention=np.array(environment.contention, dtype=np.float64),
    )


def _filled(record: np.dtype[Any], shape: int | tuple[int, ...], /, **values: Any) -> Records:
    made = np.zeros(shape, dtype=record)
    for name, value in values.items():
        made[name] = value
    return made


def _tasks(w: Workload, environment: Environment) -> Records:
    return _filled(
        TASK, len(w), arrival=w.arrival, deadline=w.deadline, limit=w.limit, runtime=w.runtime,
        noise=environment.noise, start=np.nan, finish=np.inf, cpu=w.cpu_milli, memory=w.memory_kib, gpu=w.gpu_milli,
        storage=w.storage_kib, constraint=w.constraint, kind=w.task_type, family=w.family, shape=w.shapes.of_task,
        place=w.shapes.place, node=-1, hold=-1, queue_next=-1, run_next=-1, run_previous=-1,
    )  # fmt: skip


def _inverse(amount: Floats) -> Floats:
    return np.divide(1.0, amount, out=np.zeros(len(amount)), where=amount > 0)


def _nodes(f: Fleet, environment: Environment, parameters: ReplayParameters) -> Records:
    pressure = 0.0 if environment.pressure is None else environment.pressure
    return _filled(
        NODE, len(f), penalty=parameters.penalty, pressure=pressure, cpu=f.cpu_milli, memory=f.memory_kib,
        slots=f.slots, storage=f.storage_kib, gpu=f.gpus * MILLI, largest_share=np.where(f.gpus > 0, MILLI, 0),
        whole_gpus=f.gpus, held_for=-1, cpu_capacity=f.cpu_milli, memory_capacity=f.memory_kib, gpu_capacity=f.gpus,
        storage_capacity=f.storage_kib, slots_capacity=f.slots, queue_first=-1, queue_last=-1, run_first=-1,
    )  # fmt: skip


def _pairs(environment: Environment, parameters: ReplayParameters) -> Records:
    p = parameters
    return _filled(PAIR, p.speed.shape, prior=p.speed, factor=environment.factor, affinity=p.affinity)


def _kinds(environment: Environment, parameters: ReplayParameters, options: Options) -> Records:
    rates = [options.rule.rate_of(kind) for kind in TASK_TYPES]
    return _filled(KIND, TYPES, rate=rates, base=parameters.base, cpu_use=environment.cpu_use)


def _shapes(w: Workload) -> Records:
    shapes = w.shapes
    return _filled(
        SHAPE,
        len(shapes.example),
        begin=shapes.begin[:-1],
        ahead=shapes.begin[:-1],
        example=shapes.example,
        listed_at=-1,
        blocked=-1,
    )


def _state(w: Workload, environment: Environment, options: Options) -> Records:
    pressure, rule = environment.pressure, options.rule
    return _filled(
        STATE, 1, outlier_sigma=rule.outlier_sigma, outlier_after=rule.outlier_after, follow_after=rule.follow_after,
        adaptive=rule.adaptive, family_after=options.family_after, aged_after=options.aged_after_s,
        starving_after=options.starving_after_s, next_aged=np.inf, next_starving=np.inf,
        oldest=len(w), random=options.seed, aged_share=options.aged_share,
        learn_tau=options.learn_tau, learn_speed=options.learn_speed,
        has_pressure=(pressure is not None and np.any(pressure)) or np.any(environment.cpu_use > 1),
        least_cpu=w.cpu_milli.min(initial=2**62),
    )  # fmt: skip
