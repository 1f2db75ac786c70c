"""The Lua scripts: loaded from `lua/`, run by EVALSHA through any client.

A script is one atomic step of the state. Each has exactly one typed function in this package, whose docstring is its
contract; nothing else calls it.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from cloudai.state.link import link_of

#: Scripts by name, with what Redis is told of each. `allow-oom`: it frees memory, or moves work that was accepted, so a
#: full memory must not stop it. Without a flag, Redis refuses the script whole when its memory is full.
_FLAGS = {
    "announce": "allow-oom",
    "audit": "allow-oom",
    "begin_epoch": "allow-oom",
    "cancel": "allow-oom",
    "claim": "allow-oom",
    "end_epoch": "allow-oom",
    "finish": "allow-oom",
    "heartbeat": "allow-oom",
    "hold": "allow-oom",
    "place": "",
    "place_next": "allow-oom",
    "place_waiting": "allow-oom",
    "publish_parameters": "",
    "recorded": "allow-oom",
    "refresh": "no-writes",
    "register": "allow-oom",
    "resume": "allow-oom",
    "ring": "allow-oom",
    "set_node_state": "allow-oom",
    "set_tau": "",
    "settled": "allow-oom",
    "sweep": "allow-oom",
    "unclaim": "allow-oom",
    "unrecorded": "no-writes",
    "waiting": "no-writes",
}


#: Scripts whose text is another one's, with other flags.
_FILES = {"place_next": "place"}


class Script:
    """One script: its text, its digest, and how to run it."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: Redis, prefix: str, *args: Any) -> Any:
        """Run on `client`; the server learns the script when it does not know it."""
        try:
            return link_of(client).call("EVALSHA", self.sha, 1, prefix, *args)
        except NoScriptError:
            return client.execute_command("EVAL", self.source, 1, prefix, *args)


class _Prelude:
    """The shared functions of lua/prelude.lua, of which each script gets those that it calls.

    Lua makes every local function anew at each call of a script, so what a script does not need costs it time.
    """

    def __init__(self, text: str) -> None:
        self._always: list[str] = []
        self._functions: list[tuple[frozenset[str], str]] = []
        for block in text.split("\n\n"):
            names = frozenset(re.findall(r"^local function (\w+)", block, re.MULTILINE))
            if names:
                self._functions.append((names, block))
            else:
                self._always.append(block)

    def before(self, body: str) -> str:
        """The part of the prelude that a script's text needs, in the prelude's order."""
        needed = set(re.findall(r"\w+", body))
        chosen: set[str] = set()
        for names, block in reversed(self._functions):  # a function calls only those above it
            if names & needed:
                chosen.add(block)
                needed |= set(re.findall(r"\w+", block))
        return "\n\n".join([*self._always, *(block for _, block in self._functions if block in chosen)])


class Scripts:
    """All scripts of one deployment."""

    def __init__(self, events_maxlen: int) -> None:
        folder = resources.files(__package__) / "lua"
        prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
        shared = _Prelude(prelude.replace("@EVENTS_MAXLEN@", str(events_maxlen)))
        for name, flags in _FLAGS.items():
            body = (folder / f"{_FILES.get(name, name)}.lua").read_text(encoding="utf-8")
            setattr(self, name, Script(name, f"#!lua flags={flags}\n{shared.before(body)}\n\n{body}"))

    announce: Script
    audit: Script
    begin_epoch: Script
    cancel: Script
    claim: Script
    end_epoch: Script
    finish: Script
    heartbeat: Script
    hold: Script
    place: Script
    place_next: Script
    place_waiting: Script
    publish_parameters: Script
    recorded: Script
    refresh: Script
    register: Script
    resume: Script
    ring: Script
    set_node_state: Script
    set_tau: Script
    settled: Script
    sweep: Script
    unclaim: Script
    unrecorded: Script
    waiting: Script
