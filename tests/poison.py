"""Frames that a node must survive: what a broken producer, another program or an attacker may write into its Redis.

Shared by the tests of the transport and by the fault runs. Every kind has a name and says where it is put and what must
come of it; the node lives and works in any case.
"""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cloudai.names import PLACE_QUEUE, node_queue

#: Where kombu publishes remote control.
BROADCAST = "/0.celery.pidbox"


class Where(StrEnum):
    """Where a frame is put."""

    #: Into a list that a node reads, its own or the place queue.
    ANY_LIST = "any list"
    #: Into the place queue, where whole messages of stock producers come in.
    PLACE = "place queue"
    #: Into the node's own list, as a message that is no task of ours.
    NODE = "node's list"
    #: Published to all workers.
    BROADCAST = "broadcast"


class Fate(StrEnum):
    """What must come of it."""

    #: One dead letter.
    BURIED = "buried"
    #: The task's result is FAILURE, so that its caller does not wait for ever.
    FAILS = "fails"
    #: Nothing, but the node lives.
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True)
class Poison:
    """One kind of frame."""

    kind: str
    where: Where
    fate: Fate
    frame: bytes

    @property
    def task_id(self) -> str:
        """The id in a frame that FAILS."""
        return str(json.loads(self.frame)["headers"]["id"])


def message(task: str, *args: Any, body: str | None = None, queue: str = PLACE_QUEUE, **headers: Any) -> dict[str, Any]:
    """A message as any Celery producer makes one."""
    task_id = headers.pop("id", None) or str(uuid.uuid4())
    encoded = base64.b64encode(json.dumps([list(args), {}, {}]).encode()).decode()
    return {
        "body": encoded if body is None else body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": task_id, "root_id": task_id, "retries": 0, **headers},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


#: Neither a message nor a task id.
_SHAPELESS = {
    "nothing": b"",
    "bytes that are no text": b"\xff\xfe\x00",
    "zero bytes": b"\x00" * 64,
    "half an object": b"{",
    "a list": b"[]",
    "a number": b"17",
    "not a number": b"NaN",
    "null": b"null",
    "an id that nobody knows": b"no such task",
    "a script for a shell": b"$(touch /tmp/poisoned); `reboot`",
    "a key of ours": b"{cloudai}:counters",
    "JSON text": b'"text"',
    "an empty object": b"{}",
    "an object twice": b"{}{}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a body alone": b'{"body": 1}',
    "properties that are a number": b'{"body": "", "properties": 5, "headers": {}}',
    "delivery_info that is a list": b'{"body": "", "properties": {"delivery_info": []}, "headers": {}}',
    "delivery_info that is empty":
        b'{"body": "", "properties": {"delivery_info": {}, "delivery_tag": "x"}, "headers": {}}',
    "a delivery tag that is a number":
        b'{"body": "", "properties": {"delivery_info": {"exchange": "", "routing_key": "a"}, "delivery_tag": 1},'
        b' "headers": {}}',
    "a body that is a number":
        b'{"body": 5, "properties": {"delivery_info": {"exchange": "", "routing_key": "a"}, "delivery_tag": "x"},'
        b' "headers": {}}',
    "headers that are a list":
        b'{"body": "!", "properties": {"delivery_info": {"exchange": "", "routing_key": "a"}, "delivery_tag": "x",'
        b' "body_encoding": "base64"}, "headers": [1]}',
    "an encoding that nobody knows":
        b'{"body": "!", "properties": {"delivery_info": {"exchange": "", "routing_key": "a"}, "delivery_tag": "x",'
        b' "body_encoding": "rot13"}, "headers": {}}',
    "braces without end": b"{" * 5000,
    "brackets without end": b"[" * 100_000,
    "a megabyte": b"x" * 2**20,
    "a pickle": pickle.dumps({"task": "jobs.add"}),
}  # fmt: skip

#: Headers for which a whole message is refused at the door.
_REFUSED_HEADERS: dict[str, dict[str, Any]] = {
    "a request that is a number": {"cloudai": 5},
    "a request of another version": {"cloudai": {"v": 99}},
    "a negative amount": {"cloudai": {"v": 1, "req": {"cpu_milli": -1}}},
    "an endless amount": {"cloudai": {"v": 1, "req": {"memory_kib": 10**400}}},
    "a type that is none": {"cloudai": {"v": 1, "req": {"task_type": "huge"}}},
    "a node that is none": {"cloudai": {"v": 1, "req": {"target_worker_id": "nobody@t"}}},
    "an expiry that is no time": {"expires": "never"},
}

#: Ids by which no node could be rung, and no caller told.
_IDS: dict[str, Any] = {
    "a list for an id": [1],
    "a number for an id": 5,
    "an empty id": "",
    "an id like a message": "{}",
    "an id of two lines": "a\nb",
    "an id without end": "x" * 10_000,
}

#: Bodies that cannot be read once the task is claimed.
_BODIES = {
    "a body that is no base64": "!!!!",
    "a body that is half an object": base64.b64encode(b"{").decode(),
    "a body of two numbers": base64.b64encode(b"[1, 2]").decode(),
    "a body that is text": base64.b64encode(b'"text"').decode(),
    "a body that is a pickle": base64.b64encode(pickle.dumps([[], {}, {}])).decode(),
    "a body of brackets without end": base64.b64encode(b"[" * 20_000).decode(),
    "no body": "",
}

#: Headers of an ordinary Celery message in the node's own list.
_STOCK_HEADERS: dict[str, dict[str, Any]] = {
    "an unknown task": {"task": "jobs.nowhere"},
    "a task that is a number": {"task": 5},
    "a task that is a list": {"task": ["jobs.add"]},
    "no task": {"task": None},
    "an id that is a list": {"id": [1, 2]},
    "retries that are text": {"retries": "many"},
    "an eta that is no time": {"eta": "soon"},
    "an expiry that is a list": {"expires": [1]},
    "time limits that are text": {"timelimit": "long"},
    "arguments shown that are a number": {"argsrepr": 5},
    "an origin that is an object": {"origin": {}},
    "a request of ours that is text": {"cloudai": "mine"},
    "a request of ours without a claim": {"cloudai": {"v": 1, "attempt": "first"}},
}

#: Remote control that is none, or asks for what there is not.
_BROADCASTS: dict[str, bytes] = {
    "a byte": b"\xff",
    "a brace": b"{",
    "a five": b"5",
    "an object of nothing": b"{}",
    "a message without its parts": b'{"body": "x", "properties": {}}',
    "an unreadable body": json.dumps(message("x", body="!!")).encode(),
    "half a body": json.dumps(message("x", body=base64.b64encode(b"{").decode())).encode(),
    "a body that is a list": json.dumps(message("x", body=base64.b64encode(b"[1]").decode())).encode(),
    "a command that there is not":
        json.dumps(message("x", body=base64.b64encode(b'{"method": "explode", "arguments": {}}').decode())).encode(),
    "arguments that are a list":
        json.dumps(message("x", body=base64.b64encode(b'{"method": "ping", "arguments": [1]}').decode())).encode(),
    "an answer to nowhere":
        json.dumps(
            message("x", body=base64.b64encode(b'{"method": "ping", "arguments": {}, "reply_to": 5}').decode())
        ).encode(),
    "a revocation of a number":
        json.dumps(
            message("x", body=base64.b64encode(b'{"method": "revoke", "arguments": {"task_id": 5}}').decode())
        ).encode(),
}  # fmt: skip


def poisons() -> list[Poison]:
    """One of every kind; tasks have new ids each time."""
    made = [Poison(kind, Where.ANY_LIST, Fate.BURIED, frame) for kind, frame in _SHAPELESS.items()]
    for kind, task_id in _IDS.items():
        sent = message("jobs.add", 1, 1)
        sent["headers"]["id"] = task_id
        made.append(Poison(kind, Where.PLACE, Fate.BURIED, _packed(sent)))
    for kind, headers in _REFUSED_HEADERS.items():
        made.append(Poison(kind, Where.PLACE, Fate.FAILS, _packed(message("jobs.add", 1, 1, **headers))))
    for kind, body in _BODIES.items():
        made.append(Poison(kind, Where.PLACE, Fate.FAILS, _packed(message("jobs.add", body=body))))
    for kind, headers in _STOCK_HEADERS.items():
        sent = message("jobs.plain_add", 1, 1)
        sent["headers"].update(headers)
        made.append(Poison(kind, Where.NODE, Fate.SURVIVED, _packed(sent)))
    made += [Poison(kind, Where.BROADCAST, Fate.SURVIVED, frame) for kind, frame in _BROADCASTS.items()]
    return made


def give(client: Any, poison: Poison, node: str) -> None:
    """Put a frame where it belongs, for the node of this name to read.

    Args:
        client: a Redis client of the broker's database 0.
        poison: the frame.
        node: full name of the node.
    """
    if poison.where is Where.BROADCAST:
        client.publish(BROADCAST, poison.frame)
    else:
        client.lpush(PLACE_QUEUE if poison.where is Where.PLACE else node_queue(node), poison.frame)


def of(where: Where) -> Iterator[Poison]:
    """One of every kind that is put there."""
    return (poison for poison in poisons() if poison.where is where)


def _packed(sent: dict[str, Any]) -> bytes:
    return json.dumps(sent).encode()
