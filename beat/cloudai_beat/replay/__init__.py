"""Replaying recorded or synthetic work under a policy: the engine of the optimiser and of `cloudai simulate`."""

from .engine import Options, Outcome, replay
from .parameters import ReplayParameters
from .policies import POLICIES
from .workload import Environment, Fleet, InvalidReplay, Workload

__all__ = [
    "POLICIES",
    "Environment",
    "Fleet",
    "InvalidReplay",
    "Options",
    "Outcome",
    "ReplayParameters",
    "Workload",
    "replay",
]
