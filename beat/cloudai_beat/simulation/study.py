"""Policies side by side: the same jobs, nodes, speeds and noise for each of them, over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.parameters import GAParams
from cloudai_beat.replay import POLICIES, Options, Outcome, ReplayParameters, replay
from cloudai_beat.simulation.bridge import Replayable
from cloudai_beat.simulation.metrics import METRICS, Judged, Spread, judge
from cloudai_beat.simulation.scenario import Scenario, Setting, earlier_and_later, make_scenario
from cloudai_beat.simulation.tuning import TUNED_ON, tuned
from cloudai_beat.simulation.workload import Trace

#: The policy whose parameters are evolved on the earlier part of the trace.
RTS, TUNED, CLAIRVOYANT = "rts", "rts-tuned", "clairvoyant"

#: All of them, in the order in which they are shown.
_OTHERS = tuple(name for name in POLICIES if name not in (RTS, CLAIRVOYANT))
ALL_POLICIES: tuple[str, ...] = (RTS, TUNED, *_OTHERS, CLAIRVOYANT)

#: What is compared unless said otherwise: evolving takes its time.
DEFAULT_POLICIES: tuple[str, ...] = tuple(name for name in ALL_POLICIES if name != TUNED)

#: Replays at once: they run without Python's lock.
_AT_ONCE = 2


@dataclass(frozen=True)
class Repetition:
    """All policies of one seed."""

    scenario: Scenario
    judged: Mapping[str, Judged]


@dataclass(frozen=True)
class Study:
    """What was found."""

    trace: Trace
    setting: Setting
    policies: tuple[str, ...]
    repetitions: tuple[Repetition, ...]
    #: share of the jobs that came before those that are judged; 0: all are judged
    earlier_share: float = 0.0

    def spread(self, policy: str, metric: str) -> Spread:
        """A figure of a policy over the seeds."""
        return Spread.of([repetition.judged[policy].figures[metric] for repetition in self.repetitions])

    def values(self, policy: str, metric: str) -> list[float]:
        """A figure of a policy, seed by seed."""
        return [repetition.judged[policy].figures[metric] for repetition in self.repetitions]

    def to_json(self) -> dict[str, object]:
        """As `cloudai simulate --json` prints it."""
        return {
            "policies": {
                policy: {
                    metric: {"mean": spread.mean, "sd": spread.sd}
                    for metric in METRICS
                    for spread in (self.spread(policy, metric),)
                }
                for policy in self.policies
            }
        }


def chosen_policies(names: Sequence[str]) -> tuple[str, ...]:
    """Names of policies, `all` among them, each once, in the order of ALL_POLICIES; InvalidRequest names the others."""
    if not names:
        return DEFAULT_POLICIES
    wanted = set(names)
    if "all" in wanted:
        return ALL_POLICIES
    for name in names:
        if name not in ALL_POLICIES:
            raise InvalidRequest("policies", name, f"{', '.join(ALL_POLICIES)}, or all")
    return tuple(name for name in ALL_POLICIES if name in wanted)


def study(
    trace: Trace,
    setting: Setting,
    policies: Sequence[str] = DEFAULT_POLICIES,
    *,
    seeds: int = 3,
    parameters: GAParams | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Study:
    """Replay the trace under each policy, once for each seed. `tell` hears what is done next.

    With `rts-tuned` all policies are judged on the later part of the trace, on which nothing was evolved.

    Raises:
        TraceRefused: a job is larger than every node of the given fleet; too few jobs to be cut in two.
    """
    given = parameters if parameters is not None else GAParams()
    share = TUNED_ON if TUNED in policies else 0.0
    repetitions = []
    for seed in range(seeds):
        whole = make_scenario(trace, setting, seed)
        earlier, judged_on = earlier_and_later(whole, share) if share else (None, whole)
        if seed == 0:
            _compile(judged_on)
        by_policy = dict.fromkeys(policies, given)
        if earlier is not None:
            tell(f"seed {seed}: evolving rts-tuned on {len(earlier)} jobs ...")
            by_policy[TUNED] = tuned(earlier, given, seed)
        tell(f"seed {seed}: {len(policies)} policies, {len(judged_on)} jobs, {len(judged_on.fleet)} nodes ...")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(partial(_judged, Replayable(judged_on)), by_policy.items())
            repetitions.append(Repetition(judged_on, dict(zip(by_policy, found, strict=True))))
    return Study(trace, setting, tuple(policies), tuple(repetitions), share)


def run_policy(world: Replayable, policy: str, parameters: GAParams) -> Outcome:
    """One policy over a scenario, from a cold start: tau and speeds are learned as jobs end."""
    return replay(
        world.workload,
        world.fleet,
        world.environment,
        ReplayParameters.of(parameters, world.fleet),
        Options(policy=RTS if policy == TUNED else policy, seed=world.scenario.seed),
    )


def _judged(world: Replayable, item: tuple[str, GAParams]) -> Judged:
    began = perf_counter()
    outcome = run_policy(world, *item)
    return judge(world.scenario, outcome, perf_counter() - began)


def _compile(scenario: Scenario) -> None:
    """Have the replay compiled (or read from its cache) before anything is timed."""
    few, _ = earlier_and_later(scenario, min(1.0, 8 / len(scenario)))
    run_policy(Replayable(few), RTS, GAParams())
