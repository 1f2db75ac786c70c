"""Settings: one place where configuration comes in.

`Settings.load()` reads arguments > environment > TOML file > defaults; docs/configuration.md lists them all.
"""

from __future__ import annotations

from cloudai.settings.errors import ConfigurationError
from cloudai.settings.loading import Settings
from cloudai.settings.sections import (
    LearningSettings,
    LimitSettings,
    NodeSettings,
    OptimiserSettings,
    RedisSettings,
    SchedulingSettings,
)
from cloudai.settings.sources import state_folder

__all__ = [
    "ConfigurationError",
    "LearningSettings",
    "LimitSettings",
    "NodeSettings",
    "OptimiserSettings",
    "RedisSettings",
    "SchedulingSettings",
    "Settings",
    "state_folder",
]
