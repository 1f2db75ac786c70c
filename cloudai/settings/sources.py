"""Where settings come from: the environment and one TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudai.settings.errors import ConfigurationError

#: CLOUDAI_<SECTION>__<KEY>
ENV_PREFIX = "CLOUDAI_"
ENV_DELIMITER = "__"

#: Environment variable that names the file.
ENV_FILE = "CLOUDAI_CONFIG"

#: Read when the variable is not set: the first of these that exists in the working directory.
DEFAULT_FILES = (Path("cloudai.toml"), Path("config/cloudai.toml"))

#: Variables of `docker-compose.yml` that look like a setting with an underscore too few.
NOT_OURS = frozenset({"CLOUDAI_NODE_NAME"})

#: Plain names of the specification -> section, key. The prefixed name of the same setting wins over them.
PLAIN_NAMES = {
    "SCHED_SLA_MULTIPLIER": ("scheduling", "sla_multiplier"),
    "RTS_PARAMS_RELOAD_INTERVAL": ("scheduling", "params_reload_interval_s"),
    "GA_EPOCH_INTERVAL": ("optimiser", "epoch_interval_s"),
    "GA_POPULATION_SIZE": ("optimiser", "population_size"),
    "GA_GENERATIONS": ("optimiser", "generations"),
    "GA_MUTATION_RATE": ("optimiser", "mutation_rate"),
    "GA_CROSSOVER_RATE": ("optimiser", "crossover_rate"),
}


def variable_name(section: str, key: str) -> str:
    """The environment variable of one setting."""
    return f"{ENV_PREFIX}{section}{ENV_DELIMITER}{key}".upper()


def read_environment(environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Settings in the environment as section -> key -> text.

    Only names with a section and a key are ours; CLOUDAI_CONFIG and what a job's container is given are left
    alone. A misspelt section or key stays in the answer, so that it is refused and not overlooked.
    """
    values: dict[str, dict[str, str]] = {}
    for name, (section, key) in PLAIN_NAMES.items():
        if name in environ:
            values.setdefault(section, {})[key] = environ[name]
    for name, text in environ.items():
        section, delimiter, key = name.removeprefix(ENV_PREFIX).partition(ENV_DELIMITER)
        if name.startswith(ENV_PREFIX) and delimiter:
            values.setdefault(section.lower(), {})[key.lower()] = text
    return values


def find_file(environ: Mapping[str, str]) -> Path | None:
    """The configuration file in force, or None where there is none.

    Raises:
        ConfigurationError: CLOUDAI_CONFIG names a file that does not exist.
    """
    named = environ.get(ENV_FILE)
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigurationError(
                f"{ENV_FILE}: given {named!r}, allowed: the path of a TOML file that exists"
            )
        return path
    return next((path for path in DEFAULT_FILES if path.is_file()), None)


def read_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigurationError: the file cannot be read, or is not TOML; the message has the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: not a TOML file: {error}") from error


def state_folder() -> Path:
    """The platform's folder for what a program keeps between runs; not made here."""
    home = Path.home()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state")
    return base / "cloudai"
