"""From a message to the submission that the ledger takes.

The transport takes out of the header what only the placement needs, and keeps the rest with the message.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kombu.utils.json import dumps

from cloudai.names import CONTAINER_TASK, HEADER, SCHEMA_VERSION
from cloudai.request_header import RequestHeader, on_container_nodes, read_header
from cloudai.scheduling.errors import InvalidRequest
from cloudai.scheduling.requests import TaskRequest
from cloudai.state.submissions import Submission

if TYPE_CHECKING:
    from cloudai.deployment import Deployment

def read_submission(
    message: Mapping[str, Any], deployment: Deployment
) -> tuple[Submission, list[tuple[str, str]]]:
    """The submission in a message, and its candidates (name, features), best first.

    A message that no router of ours has seen is decided here. InvalidRequest on an id or a header that cannot be
    read, or arguments over the limit.
    """
    headers = message["headers"]
    header = headers.get(HEADER)
    task_id = headers["id"]
    if not is_task_id(task_id):
        raise InvalidRequest(
            "task_id", task_id, "1 to 256 printable characters, the first neither a space nor an opening brace"
        )
    _check_size(message["body"], deployment.settings.limits.max_arguments_kib * 1024)
    name = str(headers.get("task", ""))
    if not name.isprintable() or len(name) > 512:
        # It goes into logs and events.
        raise InvalidRequest("task", name[:512], "the name of a task, at most 512 printable characters")
    from_attempt = 0
    if isinstance(header, RequestHeader):
        request, deadline, from_attempt = header.request, header.deadline, header.from_attempt
    else:
        request, deadline = read_header(header or {})
        if headers.get("task") == CONTAINER_TASK:
            request = replace(request, constraints=tuple(sorted(on_container_nodes(dict(request.constraints)).items())))
        if not (isinstance(header, dict) and "cand" in header):
            header = RequestHeader(request, task_id, deadline=deadline, delay_s=None)
            # The same frame, read twice after an outage, is one submission.
            header["nonce"] = str(message["properties"].get("delivery_tag") or header["nonce"])
            deployment.placing.decide_into(header)
    request_json = json.dumps(header["req"], separators=(",", ":"), sort_keys=True)
    kept = {"v": SCHEMA_VERSION, "req": header["req"]}
    stored = {**message, "headers": {**headers, HEADER: kept, "eta": None}}
    submission = Submission(
        task_id=task_id,
        nonce=header["nonce"],
        **placed_by(request),
        sla_s=header["sla"],
        deadline=deadline,
        eta=_eta(headers, header, deployment),
        expires=_epoch(headers.get("expires")),
        priority=_priority(message),
        name=name,
        retries=int(headers.get("retries") or 0),
        request=request_json,
        message=dumps(stored),
        decision=header["rec"],
        fallback=header["fb"],
        from_attempt=from_attempt,
        extra=kept_fields(request, header["tau"], header["par"], header["pred"]),
    )
    return submission, header["cand"]


#: A doorbell is the id alone, and what begins as JSON does is read as a message; scripts part fields by tabs.
_ID = re.compile(r"[^\s{\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,255}")


def is_task_id(value: Any) -> bool:
    """Whether a node can be rung for a task of this id, and its result be stored."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


@lru_cache(maxsize=1024)
def _texts(header: str) -> tuple[str, str]:
    return header, json.dumps({"v": SCHEMA_VERSION, "req": json.loads(header)})


def request_texts(request: TaskRequest) -> tuple[str, str]:
    """A request as JSON: as the ledger keeps it, and as the header of a message."""
    return _texts(json.dumps(request.to_header(), separators=(",", ":"), sort_keys=True))


def placed_by(request: TaskRequest) -> dict[str, Any]:
    """The fields of a Submission that follow from the request alone."""
    resources = request.resources
    return {
        "cpu_milli": resources.cpu_milli,
        "memory_kib": resources.memory_kib,
        "gpu_milli": resources.gpu_milli,
        "storage_kib": resources.storage_kib,
        "shape": request.shape,
        "task_type": str(request.task_type),
    }


def kept_fields(
    request: TaskRequest, tau: float, parameters_version: int, predicted_s: float | None
) -> tuple[tuple[str, str | int | float], ...]:
    """What the ledger keeps with a task for the history: the decision's predictions, family and user."""
    fields: list[tuple[str, str | int | float]] = [("tau", tau), ("parameters", parameters_version)]
    if predicted_s is not None:
        fields.append(("predicted", predicted_s))
    if request.family:
        fields.append(("family", request.family))
    if request.user_id:
        fields.append(("user", request.user_id))
    return tuple(fields)


def _check_size(body: str, limit: int) -> None:
    """InvalidRequest when the arguments take more than `limit` bytes; a long chain in the same body does not count."""
    # The body is base64: four characters for three bytes.
    if len(body) * 3 // 4 <= limit:
        return
    size = len(base64.b64decode(body))
    with contextlib.suppress(ValueError, TypeError):
        # Another serializer, or another protocol: then the whole body counts.
        args, kwargs, _ = json.loads(base64.b64decode(body))
        size = len(json.dumps([args, kwargs], ensure_ascii=False).encode())
    if size > limit:
        raise InvalidRequest(
            "arguments", f"{size} bytes",
            f"at most {limit} bytes (limits.max_arguments_kib); pass large data by reference",
        )


def _eta(headers: Mapping[str, Any], header: Mapping[str, Any], deployment: Deployment) -> float:
    """Epoch seconds of the server. A countdown counts from now there, whatever the producer's clock says."""
    delay = header.get("delay")
    if delay is not None:
        return deployment.view.now() + max(0.0, float(delay)) if delay > 0 else 0.0
    return _epoch(headers.get("eta"))


def _epoch(iso: Any) -> float:
    if not iso:
        return 0.0
    when = iso if isinstance(iso, datetime) else datetime.fromisoformat(str(iso))
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _priority(message: Mapping[str, Any]) -> int:
    priority = (message.get("properties") or {}).get("priority")
    return min(9, max(0, int(priority))) if isinstance(priority, int) else 0
