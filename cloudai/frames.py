"""What an entry of a list must look like to be a message: anybody who reaches Redis can write one.

The judgements say what is wrong in words, for the dead letters; "" is a message.
"""

from __future__ import annotations

import json
from typing import Any

from kombu.utils.json import loads

from cloudai.submission import is_task_id


def read_message(message: bytes) -> Any:
    """As kombu's `loads`, which asks about each object in a message whether it stands for a value that JSON has not."""
    return loads(message.decode()) if b'"__type__"' in message else json.loads(message)


def not_a_broadcast(payload: Any, channel: Any) -> str:
    """Why the body of a broadcast is not what Celery sends, objects or lists of them (events); "" when it is."""
    try:
        body = channel.Message(payload, channel=channel).decode()
    except Exception as error:
        return f"its body cannot be decoded: {error!r}"
    several = body if isinstance(body, list) and body else [body]
    return "" if all(isinstance(one, dict) for one in several) else "its body is not an object"


def not_a_message(payload: Any, channel: Any) -> str:
    """Why a frame has not the shape that kombu and Celery rely on; "" when it has."""
    if not isinstance(payload, dict):
        return "it is not a message: not an object"
    properties, headers = payload.get("properties"), payload.get("headers")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_info"), dict):
        return "it is not a message: properties or delivery_info are missing"
    if not isinstance(properties.get("delivery_tag"), str):
        return "it is not a message: no delivery_tag"
    if not {"exchange", "routing_key"} <= properties["delivery_info"].keys():
        return "it is not a message: delivery_info without exchange or routing_key"
    if isinstance(headers, dict) and "task" in headers and not is_task_id(headers.get("id")):
        return "it is a task without an id that can be used"
    if headers is not None and not isinstance(headers, dict):
        return "it is not a message: headers are not an object"
    if not isinstance(payload.get("body"), str):
        return "it is not a message: its body is not text"
    try:
        channel.Message(payload, channel=channel)
    except Exception as error:
        return f"it is not a message: {error!r}"
    return ""
