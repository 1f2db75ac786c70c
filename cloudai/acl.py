"""Redis ACL profiles: what each kind of process may do on the server that is broker and state.

The profiles keep a process from administering the server, from reading what others keep there, and a submitter from
commanding nodes. They do not make the state tamper-proof: who may submit may run the scripts that submissions run, and
so write to any key of the deployment. See docs/security.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudai.names import PLACE_QUEUE, Keys, control_queue

#: Commands on data, without those that administer the server or harm others on it.
_DATA = (
    "+@connection", "+@keyspace", "+@string", "+@hash", "+@list", "+@set", "+@sortedset", "+@stream", "+@transaction",
    "+@scripting", "+@pubsub", "+time", "-@admin", "-@dangerous", "-function", "-script|flush", "-script|kill",
)  # fmt: skip

#: Where Celery's Redis backend keeps results, chords among them; a result's channel has the name of its key.
_RESULTS = ("celery-task-meta-*", "celery-taskset-meta-*")
#: What kombu keeps of exchanges and their queues.
_BINDINGS = "_kombu.binding*"
#: Remote control and events of Celery in a database. Who subscribes to a pattern must be allowed the very same one: a
#: worker hears of other workers, a monitor of everything.
_CONTROL_CHANNEL = "/{database}.celery.pidbox"
_EVENT_CHANNELS = ("/{database}.celeryev/worker.*", "/{database}.celeryev/*")
#: Lists of remote control: commands to a worker, and the answers to who asked.
_ANSWERS = "*.celery.pidbox*"
#: The nodes' own lists, with kombu's suffixes for priorities.
_NODE_LISTS = "*.dq2*"
#: Lists of who listens to events.
_LISTENERS = "celeryev.*"
#: Messages of ordinary queues that a worker has taken.
_UNACKED = "unacked*"


@dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of process does, in a line."""

    name: str
    purpose: str


PROFILES = (
    Profile("submitter", "submits tasks, waits for results, cancels what has not begun; commands no node"),
    Profile("node", "runs tasks: a worker that is a node, or an ordinary one"),
    Profile("control", "the control process, Flower, and operators who cancel, drain, load parameters"),
    Profile("monitor", "reads nodes, tasks, results and events; writes nothing"),
)


def acl_rules(profile: str, namespace: str, queues: Sequence[str] = (), database: int = 0) -> list[str]:
    """The ACL rules of a profile, as `ACL SETUSER NAME reset on >PASSWORD` takes them behind it.

    Args:
        profile: name of one of PROFILES.
        namespace: the deployment's (redis.namespace).
        queues: ordinary queues that its processes publish to or consume from.
        database: number of the database in Redis, which is part of the channels' names.
    """
    events = tuple(channel.format(database=database) for channel in _EVENT_CHANNELS)
    keys_of = Keys(namespace)
    prefix = keys_of.prefix
    lists = tuple(f"{queue}*" for queue in queues)
    bound = (_BINDINGS,) if queues else ()
    if profile == "monitor":
        # A script names the prefix as its key, which no key has: that one may be "written".
        return [
            f"~{prefix}", *_each("%R~", f"{prefix}*", _NODE_LISTS, *_RESULTS, *lists),
            *_each("&", *events, *_RESULTS),
            "+@connection", "+@read", "+@scripting", "+@pubsub", "+@transaction", "+time", "+info",
            "-@admin", "-@dangerous", "+info", "-publish", "-function", "-script|flush", "-script|kill",
        ]  # fmt: skip
    if profile == "submitter":
        keys = (f"{prefix}*", _NODE_LISTS, *_RESULTS, *lists, *bound)
        return [*_each("~", *keys), *_each("&", *_RESULTS), *_DATA]
    if profile == "node":
        kombu_s = (f"{PLACE_QUEUE}*", _BINDINGS, _ANSWERS, _LISTENERS, _UNACKED)
        keys = (f"{prefix}*", _NODE_LISTS, *_RESULTS, *kombu_s, *lists)
        channels = (_CONTROL_CHANNEL.format(database=database), *events, *_RESULTS, keys_of.output("*"))
        return [*_each("~", *keys), *_each("&", *channels), *_DATA, "+info"]
    if profile == "control":
        return acl_rules("node", namespace, (*queues, control_queue(namespace)), database)
    raise ValueError(f"profile: given {profile}, allowed: {', '.join(one.name for one in PROFILES)}")


def _each(mark: str, *patterns: str) -> list[str]:
    return [mark + pattern for pattern in patterns]
