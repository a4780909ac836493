"""The pipe to listeners in other processes: Redis Streams, which may lose everything at any time.

One stream per publishing context, one consumer group per listening context. Redis only carries:
what every listener has taken into its inbox is confirmed in the outbox, and what is published but
not confirmed is sent again whenever the stream is not what we have left behind. The inbox makes
a double delivery harmless.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import structlog
from pydantic import ValidationError
from redis.exceptions import ResponseError

from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.messaging.inbox import Inbox
from markethall.shared.messaging.outbox import LeaderSession
from markethall.shared.messaging.transports import InProcessTransport
from markethall.shared.observability.metrics import STREAM_ENTRIES, STREAM_REPUBLISHED
from markethall.shared.persistence.redis_client import LuaScript, RedisClient, RedisUnavailable

log = structlog.get_logger("markethall.redis_streams")

# adds entries only where the stream is as we left it: a marker tells, that goes with every batch
_APPEND_IF_MARKER_MATCHES: Final = LuaScript("""
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
for i = 3, #ARGV do redis.call('XADD', KEYS[1], '*', 'event', ARGV[i]) end
redis.call('SET', KEYS[2], ARGV[2])
return 1
""")
_BATCH_SIZE: Final = 500
# the one who reads is the leader of its context, whoever that is
_CONSUMER_NAME: Final = "leader"

StreamEntry = tuple[bytes, Mapping[bytes, bytes] | None]


def stream_name(publisher: str) -> str:
    return f"markethall:events:{publisher}"


@dataclass(frozen=True)
class StreamConfig:
    """Times in seconds. `stale`: how long an entry may lie unacknowledged with somebody.

    `batch`: entries that are taken at once.
    """

    block_timeout: float = 0.5
    claim_interval: float = 15.0
    stale_after: float = 60.0
    max_backoff: float = 5.0
    batch_size: int = _BATCH_SIZE


class RedisStreamPublisher:
    """The publisher's end. `listeners`: group -> the types of events that it wants.

    Used by the relay of the leader alone, one call at a time.
    """

    def __init__(
        self,
        publisher: str,
        event_types_by_group: Mapping[str, frozenset[str]],
        redis: RedisClient,
        clock: Clock,
    ) -> None:
        self._publisher = publisher
        self._stream = stream_name(publisher)
        self._groups = sorted(event_types_by_group)
        self._event_types = frozenset[str]().union(*event_types_by_group.values())
        self._redis = redis
        self._clock = clock
        # as whoever led before us has left it: nobody knows, so everything is sent again
        self._marker: str | None = None
        self._is_disconnected = False

    def accepts(self, envelope: EventEnvelope) -> bool:
        return envelope.type in self._event_types

    def reset(self) -> None:
        """Somebody else may have led meanwhile."""
        self._marker = None

    async def deliver(self, envelopes: Sequence[EventEnvelope]) -> None:
        """Add them, if the stream is as we know it. What is not added now is sent again later."""
        accepted = [envelope for envelope in envelopes if self.accepts(envelope)]
        if not accepted or self._marker is None:
            return
        try:
            await self._append(accepted)
        except RedisUnavailable as error:
            self._on_disconnect(error)

    async def reconcile(self, leader: LeaderSession) -> None:
        """Send again what may be lost, confirm what has arrived, forget what is confirmed.

        Raises Unavailable when the outbox cannot be read.
        """
        try:
            if not await self._marker_matches():
                await self._republish_unconfirmed(leader)
            await self._confirm_and_trim(leader)
        except RedisUnavailable as error:
            self._on_disconnect(error)
        else:
            self._on_reconnect()

    async def _append(self, envelopes: Sequence[EventEnvelope]) -> None:
        marker = str(new_id())
        entries = [envelope.model_dump_json() for envelope in envelopes]
        keys = (self._stream, f"{self._stream}:marker")
        appended = await self._redis.run_script(
            _APPEND_IF_MARKER_MATCHES, keys, self._marker or "", marker, *entries
        )
        self._marker = marker if appended else None
        if appended:
            STREAM_ENTRIES.labels(self._publisher, "added").inc(len(entries))
        else:
            log.warning("redis_stream.marker_mismatch", stream=self._stream)

    async def _marker_matches(self) -> bool:
        """Asked, because it may have come back empty while there was nothing to add."""
        if self._marker is None:
            return False
        stored_marker = await self._redis.execute("GET", f"{self._stream}:marker")
        return bool(stored_marker == self._marker.encode())

    async def _republish_unconfirmed(self, leader: LeaderSession) -> None:
        """All that was published and not confirmed, in order; we trust the marker only at the end.

        Who dies half-way leaves a marker that nobody knows, and the next one begins anew. So do we
        where Redis is wiped half-way: the first ones are lost again.
        """
        marker = str(new_id())
        keys = (self._stream, f"{self._stream}:marker")
        await self._redis.execute("SET", keys[1], marker)
        after_seq, count = 0, 0
        while envelopes := await leader.get_unconfirmed(after_seq, _BATCH_SIZE):
            after_seq = envelopes[-1].seq
            entries = [
                envelope.model_dump_json() for envelope in envelopes if self.accepts(envelope)
            ]
            if not await self._redis.run_script(
                _APPEND_IF_MARKER_MATCHES, keys, marker, marker, *entries
            ):
                return
            count += len(entries)
        self._marker = marker
        if count:
            STREAM_REPUBLISHED.labels(self._publisher).inc(count)
            log.info("redis_stream.republished", stream=self._stream, count=count)

    async def _confirm_and_trim(self, leader: LeaderSession) -> None:
        """Behind the slowest group nothing is needed any more. Redis forgets it after we do."""
        while last_id := await self._minimum_acknowledged():
            entries = await self._redis.execute(
                "XRANGE", self._stream, "-", last_id, "COUNT", _BATCH_SIZE
            )
            if not entries:
                return
            envelopes = [envelope for _, fields in entries if (envelope := _parse_envelope(fields))]
            await leader.mark_confirmed(
                [envelope.event_id for envelope in envelopes], self._clock()
            )
            await self._redis.execute(
                "XTRIM", self._stream, "MINID", _next_entry_id(entries[-1][0])
            )
            STREAM_ENTRIES.labels(self._publisher, "trimmed").inc(len(entries))
            if len(entries) < _BATCH_SIZE:
                return

    async def _minimum_acknowledged(self) -> str:
        """The last entry that all have taken; empty where there is none, or a group is missing."""
        try:
            rows = await self._redis.execute("XINFO", "GROUPS", self._stream)
        except RedisUnavailable as error:
            if _is_response_error(error, "no such key"):
                return ""
            raise
        groups = {row["name"]: row for row in map(_parse_group_info, rows)}
        if not groups.keys() >= set(self._groups):
            return ""
        acknowledged = [await self._acknowledged_up_to(name, groups[name]) for name in self._groups]
        minimum = min(acknowledged)
        return "" if minimum <= (0, 0) else f"{minimum[0]}-{minimum[1]}"

    async def _acknowledged_up_to(self, group: str, row: Mapping[str, Any]) -> tuple[int, int]:
        """Up to here the group has acknowledged everything."""
        if not row["pending"]:
            return _parse_entry_id(row["last-delivered-id"])
        pending = await self._redis.execute("XPENDING", self._stream, group)
        oldest_pending = pending["min"]
        return (
            _previous_entry_id(_parse_entry_id(oldest_pending))
            if oldest_pending
            else _parse_entry_id(row["last-delivered-id"])
        )

    def _on_disconnect(self, error: RedisUnavailable) -> None:
        self._marker = None
        if not self._is_disconnected:
            log.warning("redis_stream.publish_unavailable", stream=self._stream, error=str(error))
        self._is_disconnected = True

    def _on_reconnect(self) -> None:
        if self._is_disconnected:
            log.info("redis_stream.publish_recovered", stream=self._stream)
        self._is_disconnected = False


class RedisStreamConsumer:
    """The listener's end: takes entries into the inbox, then acknowledges them.

    Runs where the context's background work is led, so one at a time: that keeps the order.
    """

    def __init__(
        self,
        publisher: str,
        subscriber: str,
        inbox_transport: InProcessTransport,
        inbox: Inbox,
        redis: RedisClient,
        config: StreamConfig | None = None,
    ) -> None:
        self._stream = stream_name(publisher)
        self._publisher = publisher
        self._group = subscriber
        self._inbox_transport = inbox_transport
        self._inbox = inbox
        self._redis = redis
        self._config = config or StreamConfig()
        self._is_disconnected = False

    async def run(self) -> None:
        """Until cancelled. Waits for Redis, and for the inbox, for as long as it takes."""
        backoff = 0.1
        while True:
            try:
                await self._consume(self._on_reconnect)
            except (RedisUnavailable, Unavailable) as error:
                backoff = (
                    0.1 if not self._is_disconnected else min(backoff * 2, self._config.max_backoff)
                )
                self._on_disconnect(error)
            # jittered, so that not all come back at once
            await asyncio.sleep(backoff * random.uniform(0.5, 1))

    async def _consume(self, on_success: Callable[[], None]) -> None:
        """First what was read and not acknowledged, then what is new: nothing is overtaken.

        Nobody else reads while we lead, so whatever is pending was left by somebody who has died,
        or by ourselves when the inbox was away.
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
        """From the very beginning: what came before we did is for us too."""
        try:
            await self._redis.execute(
                "XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM"
            )
        except RedisUnavailable as error:
            if not _is_response_error(error, "BUSYGROUP"):
                raise

    async def _read_new_entries(self) -> Sequence[StreamEntry]:
        block_timeout = self._config.block_timeout
        reply = await self._redis.execute(
            *("XREADGROUP", "GROUP", self._group, _CONSUMER_NAME, "COUNT", self._config.batch_size),
            *("BLOCK", int(block_timeout * 1000), "STREAMS", self._stream, ">"),
            deadline=self._redis.deadline_in(block_timeout + self._redis.timeout),
        )
        return _parse_entries(reply)

    async def _claim_idle_entries(self, min_idle: float) -> None:
        cursor = b"0-0"
        while True:
            reply = await self._redis.execute(
                *("XAUTOCLAIM", self._stream, self._group, _CONSUMER_NAME, int(min_idle * 1000)),
                *(cursor, "COUNT", self._config.batch_size),
            )
            cursor = reply[0]
            await self._store_and_acknowledge([_parse_entry(item) for item in reply[1]])
            if cursor == b"0-0":
                return

    async def _store_and_acknowledge(self, entries: Sequence[StreamEntry]) -> None:
        """Into the inbox, in order; acknowledged only then. Raises Unavailable, RedisUnavailable."""
        if not entries:
            return
        envelopes: list[EventEnvelope] = []
        for entry_id, fields in entries:
            envelope = _parse_envelope(fields)
            if envelope is None or not _can_decode(envelope, self._inbox_transport):
                await self._dead_letter(entry_id, fields, envelope)
            else:
                envelopes.append(envelope)
        await self._inbox_transport.deliver(envelopes)
        await self._redis.execute("XACK", self._stream, self._group, *(n for n, _ in entries))
        STREAM_ENTRIES.labels(self._publisher, "consumed").inc(len(entries))

    async def _dead_letter(
        self, entry_id: bytes, fields: Mapping[bytes, bytes] | None, envelope: EventEnvelope | None
    ) -> None:
        """What nobody can read is a dead letter: seen, kept, and in nobody's way."""
        if fields is None:
            return  # trimmed: it was confirmed
        log.error("redis_stream.unreadable_entry", stream=self._stream, entry=entry_id.decode())
        letter = envelope or _unreadable_envelope(self._stream, entry_id, fields)
        handler = f"{self._group}.unreadable"
        await self._inbox.enqueue_dead_letter(
            handler, letter, f"unreadable entry {entry_id.decode()}"
        )

    def _on_disconnect(self, error: Exception) -> None:
        if not self._is_disconnected:
            log.warning("redis_stream.consume_unavailable", stream=self._stream, error=str(error))
        self._is_disconnected = True

    def _on_reconnect(self) -> None:
        if self._is_disconnected:
            log.info("redis_stream.consume_recovered", stream=self._stream)
        self._is_disconnected = False


def _parse_envelope(fields: Mapping[bytes, bytes] | None) -> EventEnvelope | None:
    try:
        return EventEnvelope.model_validate_json((fields or {})[b"event"])
    except (ValidationError, KeyError):
        return None


def _can_decode(envelope: EventEnvelope, transport: InProcessTransport) -> bool:
    """What we do not listen to may be of any shape."""
    if not transport.accepts(envelope):
        return True
    try:
        envelope.decode()
    except (ValueError, KeyError):
        return False
    return True


def _unreadable_envelope(
    stream: str, entry_id: bytes, fields: Mapping[bytes, bytes]
) -> EventEnvelope:
    """Its id comes from its place, so that the same one is buried once."""
    text = repr(dict(fields))[:10_000].replace("\\x00", "")
    event_id = uuid5(NAMESPACE_URL, f"{stream}/{entry_id.decode()}")
    return EventEnvelope(
        event_id=event_id,
        type="unreadable",
        version=0,
        key=event_id,
        payload=text,
        occurred_at=_entry_timestamp(entry_id),
        request_id="",
    )


def _parse_entries(reply: Any) -> Sequence[StreamEntry]:
    return [_parse_entry(item) for _, items in reply or () for item in items]


def _parse_entry(item: Any) -> StreamEntry:
    entry_id, fields = item
    return entry_id, fields or None


def _parse_group_info(row: Sequence[Any]) -> dict[str, Any]:
    """The flat list of names and values that a RESP2 server sends."""
    pairs = zip(row[::2], row[1::2], strict=True)
    fields = {name.decode(): value for name, value in pairs}
    return {**fields, "name": fields["name"].decode()}


def _parse_entry_id(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, count = entry_id.partition(b"-")
    return int(milliseconds), int(count)


def _previous_entry_id(position: tuple[int, int]) -> tuple[int, int]:
    milliseconds, count = position
    return (milliseconds, count - 1) if count else (milliseconds - 1, 2**63)


def _next_entry_id(entry_id: bytes) -> str:
    milliseconds, count = _parse_entry_id(entry_id)
    return f"{milliseconds}-{count + 1}"


def _entry_timestamp(entry_id: bytes) -> datetime:
    return datetime.fromtimestamp(_parse_entry_id(entry_id)[0] / 1000, UTC)


def _is_response_error(error: RedisUnavailable, text: str) -> bool:
    """It is there, and says so."""
    return isinstance(error.__cause__, ResponseError) and text in str(error)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
