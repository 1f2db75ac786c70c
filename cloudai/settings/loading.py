"""All settings together, and how they are read: arguments > environment > file > defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cloudai.settings.celery_program import mistakes_told_plainly
from cloudai.settings.errors import ConfigurationError
from cloudai.settings.problems import Layer, describe, refuse_single_underscores
from cloudai.settings.sections import (
    LearningSettings,
    LimitSettings,
    NodeSettings,
    OptimiserSettings,
    RedisSettings,
    SchedulingSettings,
    refuse,
)
from cloudai.settings.sources import find_file, read_environment, read_file


class Settings(BaseModel):
    """The settings of one process. Read them with `Settings.load()`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    redis: RedisSettings = RedisSettings()
    scheduling: SchedulingSettings = SchedulingSettings()
    learning: LearningSettings = LearningSettings()
    limits: LimitSettings = LimitSettings()
    node: NodeSettings = NodeSettings()
    optimiser: OptimiserSettings = OptimiserSettings()

    @classmethod
    @mistakes_told_plainly()
    def load(cls, **overrides: Mapping[str, Any]) -> Self:
        """Read the settings, `overrides` first: `Settings.load(redis={"url": "redis://..."})`.

        A setting is taken as a whole from the first source that has it; tables are not merged.

        Raises:
            ConfigurationError: a line for every problem: where it was set, its key, what was given and what
                is allowed. Under Celery's program it is printed, and the program ends.
        """
        refuse_single_underscores(cls, os.environ)
        layers = [Layer("argument", overrides), Layer("environment", read_environment(os.environ))]
        path = find_file(os.environ)
        if path is not None:
            layers.append(Layer(str(path), read_file(path)))
        merged: dict[str, Any] = {}
        for layer in reversed(layers):
            for section, values in layer.values.items():
                below = merged.get(section)
                if isinstance(values, Mapping) and isinstance(below, Mapping):
                    merged[section] = {**below, **values}
                else:
                    merged[section] = values
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            problems = [line for detail in error.errors() for line in describe(cls, detail, layers)]
            raise ConfigurationError(*dict.fromkeys(problems)) from error

    @model_validator(mode="after")
    def _telemetry_can_be_fresh(self) -> Self:
        interval = self.node.heartbeat_interval_s
        if self.scheduling.staleness_s <= interval:
            bound = f"more than node.heartbeat_interval_s ({interval:g})"
            refuse([("scheduling.staleness_s", self.scheduling.staleness_s, bound)])
        return self
