"""The broker side: a kombu Redis transport whose `put` places a task and whose `get` claims one.

The ledger in Redis is the truth; a node's list holds only task ids, doorbells. All touch points with kombu's internals
(`_put`, `_brpop_read`, the QoS class: tested with kombu 5.7) are in this module.

    put to cloudai.place   one Lua call: reserve on a candidate, keep the message, ring the node; or let it wait
    BRPOP of a node        yields an id; one Lua call claims it and returns the message
    ack                    nothing: the ledger holds the message until finish
    restore at shutdown    unclaim, for what has not started
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any, cast

import kombu.transport
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis import Redis
from redis.exceptions import OutOfMemoryError

from cloudai import node_hooks
from cloudai.deployment import Deployment, deployment_of
from cloudai.errors import DuplicateTask
from cloudai.frames import not_a_broadcast, not_a_message, read_message
from cloudai.names import HEADER, PLACE_QUEUE, SCHEMA_VERSION, queue_node
from cloudai.scheduling.errors import CloudAIError
from cloudai.state.attempts import Claim
from cloudai.state.full_memory import although_full
from cloudai.state.refused_writes import PlainConnection, SentinelConnection, SentinelTLSConnection, TLSConnection
from cloudai.submission import read_submission

logger = logging.getLogger(__name__)

#: Transport option by which a channel finds its deployment.
OPTION = "cloudai_deployment"
#: Tasks that a node claims in one round trip at most.
DOORBELLS_TOGETHER = 8
#: Dead letters that are kept, newest first.
DEAD_LETTERS_KEPT = 1000
#: Between two attempts to put back what could not be placed, seconds.
_KEEP_RETRY_S = 0.5


def _is_ours(message: Any) -> bool:
    return bool(message.delivery_info.get("routing_key") == PLACE_QUEUE)


class _QoSMixin:
    """Our messages have no unacked hash: nothing in Redis changes when they are delivered, acked or rejected."""

    channel: Any
    _delivered: Any
    _dirty: Any

    def append(self, message: Any, delivery_tag: str) -> None:
        base = virtual.QoS if _is_ours(message) else super()
        if base is virtual.QoS:
            virtual.QoS.append(cast(Any, self), message, delivery_tag)
        else:
            super().append(message, delivery_tag)  # type: ignore[misc]

    def ack(self, delivery_tag: str) -> None:
        message = self._delivered.get(delivery_tag)
        if message is not None and _is_ours(message):
            virtual.QoS.ack(cast(Any, self), delivery_tag)
        else:
            super().ack(delivery_tag)  # type: ignore[misc]

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        message = self._delivered.get(delivery_tag)
        if message is not None and _is_ours(message):
            # The request's own callbacks end the attempt or give it back; there is nothing to restore here.
            virtual.QoS.ack(cast(Any, self), delivery_tag)
        else:
            super().reject(delivery_tag, requeue)  # type: ignore[misc]

    def restore_visible(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().restore_visible(*args, **kwargs)  # type: ignore[misc]
        except OutOfMemoryError:
            # It looks for stock messages that a lost worker left; that can wait until the server has room.
            return None

    def restore_unacked(self, client: Redis | None = None) -> Any:
        for tag, message in list(self._delivered.items()):
            if _is_ours(message):
                if tag not in self._dirty:
                    self.channel.cloudai_give_back(message)
                del self._delivered[tag]
        return super().restore_unacked(client)  # type: ignore[misc]


class _ChannelMixin:
    """`_put` and `_brpop_read` of a Redis channel, for the place queue and for doorbells."""

    connection: Any
    client: Any
    connection_errors: Any
    sep: str
    keyprefix_queue: str
    Message: Any
    _create_client: Any
    _in_poll: Any
    _cloudai_client: Redis | None = None
    #: Set from the transport options (OPTION).
    cloudai_deployment: str | None = None

    @property
    def deployment(self) -> Deployment | None:
        return deployment_of(self.cloudai_deployment)

    def _kept_client(self) -> Redis:
        # kombu makes a client for each operation; that alone costs as much as the operation.
        if self._cloudai_client is None:
            self._cloudai_client = self._create_client()
        return self._cloudai_client

    @contextmanager
    def conn_or_acquire(self, client: Redis | None = None) -> Iterator[Redis]:
        """The client given, or the channel's own."""
        yield client or self._kept_client()

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        deployment = self.deployment
        if queue != PLACE_QUEUE or deployment is None:
            super()._put(queue, message, **kwargs)  # type: ignore[misc]
            return
        submission, candidates = read_submission(message, deployment)
        # Also inside kombu's publish batch: what became of a placement must be known before the next one.
        deployment.submit(submission, candidates, self._kept_client())

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                # Disconnect, so that the next round reconnects.
                self.client.connection.disconnect()
                raise
            if not reply:
                raise Empty
            dest, item = reply
            queue = bytes_to_str(dest).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)  # type: ignore[attr-defined]
            self._take(queue, item if isinstance(item, bytes) else item.encode())
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()  # type: ignore[attr-defined]

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        # Remote control and gossip: what a worker cannot read would end it, or deafen it for a while.
        reason = not_a_message(message, self) or not_a_broadcast(message, self)
        if not reason:
            try:
                return bool(super()._deliver_fanout_message(message, exchange))  # type: ignore[misc]
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                reason = f"it cannot be handled: {error!r}"
        self._bury(exchange, json.dumps(message).encode(), reason)
        return True

    def _take(self, queue: str, frame: bytes) -> None:
        """Handle one entry of a list; whatever it holds, the worker lives."""
        deployment = self.deployment
        if deployment is not None and not frame.lstrip().startswith(b"{"):
            self._take_doorbell(deployment, queue, frame)
            return
        try:
            payload = loads(bytes_to_str(frame))
        except Exception as error:
            self._bury(queue, frame, f"it is not a message: {error!r}")
            return
        reason = not_a_message(payload, self)
        if reason:
            self._bury(queue, frame, reason)
        elif queue == PLACE_QUEUE and deployment is not None:
            self._take_submission(deployment, frame, payload)
        else:
            # Only a claim may say which attempt a message is, or a forged one could end another's.
            if payload.get("headers"):
                payload["headers"].pop(HEADER, None)
            self.connection._deliver(payload, queue)

    def _take_submission(self, deployment: Deployment, frame: bytes, payload: dict[str, Any]) -> None:
        """A whole message in the place queue: from a producer on stock kombu, or another language."""
        try:
            submission, candidates = read_submission(payload, deployment)
            deployment.submit(submission, candidates, self._kept_client())
        except (CloudAIError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._bury(PLACE_QUEUE, frame, f"it cannot be placed: {error!r}")
            task_id = payload["headers"].get("id")
            # The result of a task that is unfinished belongs to that one, not to its double.
            if isinstance(task_id, str) and not isinstance(error, DuplicateTask):
                node_hooks.hooks.unplaceable(task_id, error)
        except self.connection_errors:
            # It is in no ledger yet: back where it came from, when Redis is back.
            self._keep(frame)
            raise

    def _keep(self, frame: bytes) -> None:
        while True:
            try:
                self._create_client().rpush(PLACE_QUEUE, frame)
            except self.connection_errors as error:
                logger.warning("redis-away: a message that is not placed yet is kept (%s)", error)
                time.sleep(_KEEP_RETRY_S)
            else:
                return

    def _take_doorbell(self, deployment: Deployment, queue: str, frame: bytes) -> None:
        try:
            task_id = frame.decode()
        except UnicodeDecodeError:
            self._bury(queue, frame, "it is neither a message nor a task id")
            return
        node = queue_node(queue)
        incarnation = node_hooks.hooks.incarnation
        claims = deployment.ledger.claim_several(task_id, node, incarnation, more=DOORBELLS_TOGETHER - 1)
        if not claims:
            if not deployment.ledger.entry(task_id):
                self._bury(queue, frame, "it is neither a message nor the id of a known task")
            else:
                logger.info("claim-refused task=%s node=%s: cancelled, moved or taken already", task_id, node)
        for claim in claims:
            self._deliver_claim(queue, node, claim)

    def _deliver_claim(self, queue: str, node: str, claim: Claim) -> None:
        """Hand a claimed task to the worker; one that cannot be read is ended, its caller waits for a result."""
        if not node_hooks.hooks.claimed(claim):
            return
        task_id = claim.task_id
        try:
            payload = read_message(claim.message)
            header = payload["headers"].setdefault(HEADER, {})
            header.update(
                v=SCHEMA_VERSION,
                id=task_id,
                attempt=claim.attempt,
                node=node,
                devices=list(claim.devices),
                waiting=round(claim.waiting_s, 6),
                deadline=claim.deadline,
                reserved=[claim.cpu_milli, claim.memory_kib, claim.gpu_milli, claim.storage_kib],
                adopts=claim.adopts,
            )
            payload["headers"]["id"] = task_id
            payload["properties"]["delivery_info"]["routing_key"] = PLACE_QUEUE
            problem = not_a_message(payload, self) or ("" if payload["body"] else "its body is empty")
            if problem:
                raise ValueError(problem)
        except Exception as error:
            reason = f"its message cannot be read: {error!r}"
            self._bury(queue, task_id.encode(), reason)
            node_hooks.hooks.undecodable(claim, reason)
            return
        self.connection._deliver(payload, queue)

    def _bury(self, queue: str, frame: bytes, reason: str) -> None:
        """Keep a frame that cannot be used where an operator finds it."""
        deployment = self.deployment
        logger.error("dead-letter queue=%s: %s. It starts with %r", queue, reason, frame[:80])
        if deployment is None:
            return
        letter = json.dumps({"queue": queue, "reason": reason, "frame": frame[:65536].decode("utf-8", "replace")})
        key = deployment.keys.dead_letters
        client = self._kept_client()
        although_full(client, "LPUSH", key, letter)
        client.ltrim(key, 0, DEAD_LETTERS_KEPT - 1)
        although_full(client, "HINCRBY", deployment.keys.counters, "dead_letters_total", 1)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]
        except OutOfMemoryError:
            # A worker that (re)connects to a full server goes on with what was accepted.
            bound = self.sep.join([routing_key or "", pattern or "", queue or ""])
            although_full(self._kept_client(), "SADD", self.keyprefix_queue % (exchange,), bound)

    def cloudai_give_back(self, message: Any) -> None:
        """The channel closes: unclaim what was delivered and has not started."""
        deployment = self.deployment
        header = message.headers.get(HEADER) or {}
        task_id, attempt = message.headers.get("id"), header.get("attempt")
        if deployment is None or task_id is None or attempt is None:
            return
        if node_hooks.hooks.given_back(task_id, attempt):
            deployment.ledger.unclaim(task_id, attempt)
            node_hooks.hooks.unclaimed(task_id, attempt)


class QoS(_QoSMixin, kombu_redis.QoS):
    """Quality of service of a channel."""


class Channel(_ChannelMixin, kombu_redis.Channel):
    """A Redis channel that places and claims."""

    QoS = QoS
    connection_class = PlainConnection
    connection_class_ssl = TLSConnection
    from_transport_options = (*kombu_redis.Channel.from_transport_options, OPTION)  # type: ignore[assignment]


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with our channel."""

    Channel = Channel


class SentinelChannel(_ChannelMixin, kombu_redis.SentinelChannel):
    """The same behind Redis Sentinel."""

    QoS = QoS
    connection_class = SentinelConnection
    connection_class_ssl = SentinelTLSConnection  # type: ignore[assignment]
    from_transport_options = (*kombu_redis.SentinelChannel.from_transport_options, OPTION)  # type: ignore[assignment]


class SentinelTransport(kombu_redis.SentinelTransport):
    """kombu's Sentinel transport with our channel."""

    Channel = SentinelChannel


def register() -> None:
    """Take kombu's own aliases, so that broker URLs stay as they are and Flower shows queue lengths.

    A connection without our transport option behaves as with kombu's own transport.
    """
    kombu.transport.TRANSPORT_ALIASES.update(
        redis="cloudai.transport:Transport",
        rediss="cloudai.transport:Transport",
        sentinel="cloudai.transport:SentinelTransport",
    )
