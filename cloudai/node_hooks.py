"""What the transport asks of the node that its process is; a process that is no node answers with defaults.

The library must not import the node's package: that one sets the hooks when a node starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloudai.state.attempts import Claim


class NodeHooks:
    """What the node process tells its channel; the defaults are those of a process that is no node."""

    #: Incarnation under which tasks are claimed; "" claims nothing.
    incarnation: str = ""

    def claimed(self, claim: Claim) -> bool:
        """A task was claimed. False: it is not to be delivered (it runs here already, or its result is known)."""
        return True

    def undecodable(self, claim: Claim, reason: str) -> None:
        """A claimed message cannot be read: end the attempt, its caller waits for a result."""

    def unplaceable(self, task_id: str, error: Exception) -> None:
        """A whole message from elsewhere was refused: tell its caller, as apply_async would have."""

    def given_back(self, task_id: str, attempt: int) -> bool:
        """The channel is closing and holds this task unacknowledged. True: it has not started, unclaim it."""
        return False

    def unclaimed(self, task_id: str, attempt: int) -> None:
        """A task was given back to the ledger."""

    def fenced(self, task_id: str, attempt: int, body: Callable[[], Any]) -> Any:
        """Run the body of a claimed task; Ignore in place of its outcome where another attempt has taken over."""
        return body()


#: Set by the node process (cloudai_workers) before it consumes.
hooks = NodeHooks()


def set_hooks(new: NodeHooks) -> None:
    """Make `new` the node of this process."""
    global hooks
    hooks = new
