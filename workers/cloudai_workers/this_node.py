"""The node that this process is, for whoever must not import what only a node needs (an ordinary worker's requests)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloudai_workers.node import Node

_current: Node | None = None


def current() -> Node | None:
    """The node that this process is; None in an ordinary worker, and before it has joined."""
    return _current


def become(node: Node | None) -> None:
    """This process is this node from now on; None: no node any more."""
    global _current
    _current = node
