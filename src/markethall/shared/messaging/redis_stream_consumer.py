"""The subscriber's side of the Redis Streams transport."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from markethall.shared.kernel.call_context import system_context
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.messaging.event_signature import EventVerifier, kid_of
from markethall.shared.messaging.events import EventEnvelope, publisher_of
from markethall.shared.messaging.inbox import Inbox
from markethall.shared.messaging.outbox_relay import InProcessTransport
from markethall.shared.messaging.redis_stream_format import (
    Fields,
    StreamEntry,
    envelope_of_unreadable_entry,
    is_response_error,
    parse_entries,
    parse_entry,
    parse_envelope,
    stream_name,
)
from markethall.shared.observability.metrics import STREAM_ENTRIES, STREAM_UNAVAILABLE
from markethall.shared.persistence.redis_client import RedisClient, RedisUnavailable

log = structlog.get_logger("markethall.redis_streams")

# All processes can use one name, because only the leader of a context reads its streams.
_CONSUMER_NAME: Final = "leader"
# The number of signatures that are verified before other tasks of the event loop may run. One
# verification takes about 0.1 ms, so the other tasks wait for a few milliseconds.
_VERIFIED_AT_ONCE: Final = 32


@dataclass(frozen=True)
class StreamConfig:
    """Times in seconds; `batch_size` is the maximum number of entries of one read.

    Every `claim_interval`, entries that were read but not acknowledged for `stale_after` are read
    again.
    """

    block_timeout: float = 0.5
    claim_interval: float = 15.0
    stale_after: float = 60.0
    max_backoff: float = 5.0
    batch_size: int = 500


class RedisStreamConsumer:
    """Writes the entries of a stream to the inbox, then acknowledges them in Redis.

    An entry without a valid signature of the publisher is unreadable: it becomes a dead letter.
    While the public keys of the publisher cannot be fetched, its entries wait in the stream.

    It runs only in the leader of the subscribing context, because several readers at the same time
    would not keep the order of the entries.
    """

    def __init__(
        self,
        publisher: str,
        subscriber: str,
        inbox_transport: InProcessTransport,
        inbox: Inbox,
        redis: RedisClient,
        verifier: EventVerifier,
        config: StreamConfig | None = None,
    ) -> None:
        self._stream = stream_name(publisher)
        self._publisher = publisher
        self._group = subscriber
        self._inbox_transport = inbox_transport
        self._inbox = inbox
        self._redis = redis
        self._verifier = verifier
        self._config = config or StreamConfig()
        self._is_disconnected = False

    async def run(self) -> None:
        """Consume until cancelled; retry with back-off while Redis or the inbox is unavailable."""
        backoff = 0.1
        while True:
            try:
                await self._consume(self._on_reconnect)
            except (RedisUnavailable, Unavailable) as error:
                backoff = (
                    0.1 if not self._is_disconnected else min(backoff * 2, self._config.max_backoff)
                )
                self._on_disconnect(error)
            # jitter, so that not all processes reconnect at once
            await asyncio.sleep(backoff * random.uniform(0.5, 1))

    async def _consume(self, on_success: Callable[[], None]) -> None:
        """Store pending entries first, then new ones, so that the order is kept.

        Pending means read but not acknowledged. There is only one reader, so a pending entry was
        read by an earlier leader, or by this process while the inbox was unavailable.
        """
        await self._create_group()
        await self._claim_idle_entries(min_idle=0)
        claim_at = _loop_time() + self._config.claim_interval
        while True:
            await self._store_and_acknowledge(await self._read_new_entries())
            on_success()
            if _loop_time() >= claim_at:
                await self._claim_idle_entries(min_idle=self._config.stale_after)
                claim_at = _loop_time() + self._config.claim_interval

    async def _create_group(self) -> None:
        """Create the consumer group, which reads from the start of the stream, if it is missing."""
        try:
            await self._redis.execute(
                "XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM"
            )
        except RedisUnavailable as error:
            if not is_response_error(error, "BUSYGROUP"):
                raise

    async def _read_new_entries(self) -> Sequence[StreamEntry]:
        block_timeout = self._config.block_timeout
        reply = await self._redis.execute(
            *("XREADGROUP", "GROUP", self._group, _CONSUMER_NAME, "COUNT", self._config.batch_size),
            *("BLOCK", int(block_timeout * 1000), "STREAMS", self._stream, ">"),
            deadline=self._redis.deadline_in(block_timeout + self._redis.timeout),
        )
        return parse_entries(reply)

    async def _claim_idle_entries(self, min_idle: float) -> None:
        cursor = b"0-0"
        while True:
            reply = await self._redis.execute(
                *("XAUTOCLAIM", self._stream, self._group, _CONSUMER_NAME, int(min_idle * 1000)),
                *(cursor, "COUNT", self._config.batch_size),
            )
            cursor = reply[0]
            await self._store_and_acknowledge([parse_entry(item) for item in reply[1]])
            if cursor == b"0-0":
                return

    async def _store_and_acknowledge(self, entries: Sequence[StreamEntry]) -> None:
        """Store the entries in order, then acknowledge. Raises Unavailable, RedisUnavailable."""
        if not entries:
            return
        await self._verifier.fetch_unknown_keys(fields or {} for _, fields in entries)
        envelopes: list[EventEnvelope] = []
        for position, (entry_id, fields) in enumerate(entries):
            if position % _VERIFIED_AT_ONCE == 0:
                await asyncio.sleep(0)
            if fields is None:
                continue  # trimmed from the stream, which happens only to confirmed entries
            envelope = self._verify_and_parse(entry_id, fields)
            if envelope is None or not self._can_decode(envelope):
                await self._dead_letter(entry_id, fields, envelope)
            else:
                envelopes.append(envelope)
        await self._inbox_transport.deliver(envelopes)
        entry_ids = [entry_id for entry_id, _ in entries]
        await self._redis.execute("XACK", self._stream, self._group, *entry_ids)
        STREAM_ENTRIES.labels(self._publisher, "consumed").inc(len(entries))

    def _verify_and_parse(self, entry_id: bytes, fields: Fields) -> EventEnvelope | None:
        """Return the envelope, or None for an entry that is forged or malformed."""
        defect = self._verifier.find_defect(fields)
        envelope = None if defect else parse_envelope(fields)
        if envelope and publisher_of(envelope.type) != self._publisher:
            # the signature is valid, but the type of an event must begin with its publisher
            defect, envelope = "other_publisher", None
        if defect:
            log.warning(
                "security.event_rejected",
                **system_context(f"{self._group}.redis_stream").security_fields,
                subject=f"context:{self._publisher}",
                subscriber=self._group,
                entry=entry_id.decode(),
                kid=kid_of(fields),
                reason=defect,
            )
        return envelope

    def _can_decode(self, envelope: EventEnvelope) -> bool:
        """Tell whether the event can be decoded; true also if no handler subscribes to its type."""
        if not self._inbox_transport.accepts(envelope):
            return True
        try:
            envelope.decode()
        except (ValueError, KeyError):
            return False
        return True

    async def _dead_letter(
        self, entry_id: bytes, fields: Fields, envelope: EventEnvelope | None
    ) -> None:
        """Store an unreadable entry as a dead letter, so that it does not block the stream."""
        log.error("redis_stream.unreadable_entry", stream=self._stream, entry=entry_id.decode())
        await self._inbox.enqueue_dead_letter(
            f"{self._group}.unreadable",
            envelope or envelope_of_unreadable_entry(self._stream, entry_id, fields),
            f"unreadable entry {entry_id.decode()}",
        )

    def _on_disconnect(self, error: Exception) -> None:
        if not self._is_disconnected:
            log.warning("redis_stream.consume_unavailable", stream=self._stream, error=str(error))
        self._is_disconnected = True
        STREAM_UNAVAILABLE.labels(self._publisher, "consume").set(1)

    def _on_reconnect(self) -> None:
        if self._is_disconnected:
            log.info("redis_stream.consume_recovered", stream=self._stream)
        self._is_disconnected = False
        STREAM_UNAVAILABLE.labels(self._publisher, "consume").set(0)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
