"""The nodes of a local cluster: several on one machine, each with a capacity that is declared."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from cloudai.settings import ConfigurationError
from cloudai.settings.sections import NodeSettings

#: Host part of the nodes' names. Celery names a worker name@host, and these are no hosts of their own.
HOST = "local"

#: What runs their container jobs; auto: Docker where an engine answers, else local processes.
RunnerChoice = Literal["auto", "docker", "process"]

_KEYS = ("name", "cpu", "memory", "gpus", "storage", "slots", "labels")
_REQUIRED = ("name", "cpu", "memory")


@dataclass(frozen=True, slots=True)
class LocalNode:
    """One node: its name and what it says it has."""

    #: Without a host part; see `full_name`.
    name: str
    #: Cores.
    cpu: float
    #: GiB.
    memory: float
    #: Devices.
    gpus: int = 0
    #: GiB.
    storage: float = 20.0
    #: Tasks at once at most.
    slots: int = 4
    #: What constraints are matched with.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Further environment of its process.
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """The name in the fleet: what `target_worker_id`, `nodes` and `drain` take."""
        return self.name if "@" in self.name else f"{self.name}@{HOST}"

    def settings(self) -> dict[str, Any]:
        """The settings of section `node` that declare it."""
        return {
            "cpu": self.cpu,
            "memory": f"{self.memory}GiB",
            "gpus": self.gpus,
            "storage": f"{self.storage}GiB",
            "slots": self.slots,
            "labels": dict(self.labels),
        }


#: Three unequal nodes: what `cloudai up` and the demo start unless told otherwise.
DEFAULT_NODES = (
    LocalNode("small", cpu=1, memory=4, slots=2, labels={"size": "small", "zone": "a"}),
    LocalNode("medium", cpu=2, memory=8, slots=4, labels={"size": "medium", "zone": "b"}),
    LocalNode(
        "large", cpu=4, memory=16, gpus=2, slots=8, labels={"size": "large", "zone": "a", "gpu": "declared"}
    ),
)


def default_nodes(count: int) -> tuple[LocalNode, ...]:
    """`count` nodes, small, medium and large in turn; those after the first three carry a number.

    Raises:
        ConfigurationError: the count is below 1 or above 64.
    """
    if not 1 <= count <= 64:
        raise ConfigurationError(f"nodes: given {count}, allowed: 1 to 64 nodes on one machine")
    nodes = []
    for i in range(count):
        kind = DEFAULT_NODES[i % len(DEFAULT_NODES)]
        turn = i // len(DEFAULT_NODES) + 1
        name = kind.name if turn == 1 else f"{kind.name}-{turn}"
        nodes.append(
            LocalNode(name, kind.cpu, kind.memory, kind.gpus, kind.storage, kind.slots, dict(kind.labels))
        )
    return tuple(nodes)


def read_nodes(path: Path) -> tuple[LocalNode, ...]:
    """The nodes of a TOML file (`[[nodes]]` tables) or a JSON file (a list of objects, or one under "nodes").

    Raises:
        ConfigurationError: the file cannot be read, or a node in it is wrong; a line for every problem.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: neither TOML nor (named *.json) JSON: {error}") from error
    entries = found.get("nodes") if isinstance(found, dict) else found
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{path}: nodes: given {entries!r}, allowed: a list of nodes, at least one")
    problems: list[str] = []
    nodes = [_node(entry, f"{path}: nodes[{i}]", problems) for i, entry in enumerate(entries)]
    made = [node for node in nodes if node is not None]
    problems += _twice(made, path)
    if problems:
        raise ConfigurationError(*problems)
    return tuple(made)


def _node(entry: Any, where: str, problems: list[str]) -> LocalNode | None:
    if not isinstance(entry, dict):
        problems.append(f"{where}: given {entry!r}, allowed: a table with {', '.join(_KEYS)}")
        return None
    before = len(problems)
    problems += [f"{where}.{key}: unknown, allowed: {', '.join(_KEYS)}" for key in entry if key not in _KEYS]
    problems += [f"{where}.{key}: missing" for key in _REQUIRED if entry.get(key) in (None, "")]
    if len(problems) > before:
        return None
    try:
        checked = NodeSettings.model_validate(entry)
    except ValidationError as error:
        for detail in error.errors():
            key = ".".join(str(part) for part in detail["loc"])
            problems.append(f"{where}.{key}: given {detail['input']!r}: {detail['msg']}")
        return None
    assert checked.cpu is not None
    assert checked.memory is not None
    return LocalNode(
        name=checked.name,
        cpu=checked.cpu,
        memory=checked.memory,
        gpus=checked.gpus or 0,
        storage=checked.storage or 20.0,
        slots=checked.slots or max(1, round(2 * checked.cpu)),
        labels=checked.labels,
    )


def _twice(nodes: Sequence[LocalNode], path: Path) -> list[str]:
    names = [node.full_name for node in nodes]
    return [
        f"{path}: name: {name} is given {names.count(name)} times, allowed: once"
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
