"""The publisher's side of the Redis Streams transport.

There is one stream per publishing context, with one consumer group per subscribing context. The
publisher confirms an event in the outbox when every group has acknowledged it. Redis may lose data
at any time. The publisher detects this by a marker: a Redis key whose value changes with every
batch. If the value is not the one that this publisher wrote last, all relayed, unconfirmed events
are sent again. Inboxes ignore the duplicates.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.event_signature import EventSigner
from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.messaging.outbox import LeaderSession
from markethall.shared.messaging.redis_stream_format import (
    is_response_error,
    next_entry_id,
    parse_entry_id,
    parse_envelope,
    parse_group_info,
    previous_entry_id,
    stream_name,
)
from markethall.shared.observability.metrics import (
    STREAM_ENTRIES,
    STREAM_REPUBLISHED,
    STREAM_UNAVAILABLE,
)
from markethall.shared.persistence.redis_client import LuaScript, RedisClient, RedisUnavailable

log = structlog.get_logger("markethall.redis_streams")

# KEYS: stream, marker. ARGV: expected marker, new marker, then each envelope and its signature.
_APPEND_IF_MARKER_MATCHES: Final = LuaScript("""
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[1], '*', 'event', ARGV[i], 'signature', ARGV[i + 1])
end
redis.call('SET', KEYS[2], ARGV[2])
return 1
""")
_BATCH_SIZE: Final = 500


class RedisStreamPublisher:
    """Appends events to the stream, confirms them in the outbox and trims the stream.

    `event_types_by_group` has the event types that each consumer group handles. Only the relay of
    the leader uses a publisher, one call at a time.
    """

    def __init__(
        self,
        publisher: str,
        event_types_by_group: Mapping[str, frozenset[str]],
        redis: RedisClient,
        clock: Clock,
        signer: EventSigner,
    ) -> None:
        self._publisher = publisher
        self._stream = stream_name(publisher)
        self._marker_key = f"{self._stream}:marker"
        self._groups = sorted(event_types_by_group)
        self._event_types = frozenset[str]().union(*event_types_by_group.values())
        self._redis = redis
        self._clock = clock
        self._signer = signer
        # None means that the state of the stream is unknown: `reconcile` then sends all relayed,
        # unconfirmed events again
        self._marker: str | None = None
        self._is_disconnected = False

    def accepts(self, envelope: EventEnvelope) -> bool:
        return envelope.type in self._event_types

    def reset(self) -> None:
        """Forget the marker, because another process may have been the leader meanwhile."""
        self._marker = None

    async def deliver(self, envelopes: Sequence[EventEnvelope]) -> None:
        """Append the envelopes if the marker matches; otherwise leave them to `reconcile`."""
        accepted = [envelope for envelope in envelopes if self.accepts(envelope)]
        if not accepted or self._marker is None:
            return  # the relay marks them as relayed, not confirmed, so `reconcile` sends them
        try:
            await self._append(accepted, self._marker)
        except RedisUnavailable as error:
            self._on_disconnect(error)

    async def reconcile(self, leader: LeaderSession) -> None:
        """Send possibly lost events again; confirm and trim events that all groups acknowledged.

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

    async def _append(self, envelopes: Sequence[EventEnvelope], marker: str) -> None:
        new_marker = str(new_id())
        appended = await self._append_if_marker_matches(envelopes, marker, new_marker)
        self._marker = new_marker if appended else None
        if appended:
            STREAM_ENTRIES.labels(self._publisher, "added").inc(len(envelopes))
        else:
            log.warning("redis_stream.marker_mismatch", stream=self._stream)

    async def _append_if_marker_matches(
        self, envelopes: Sequence[EventEnvelope], expected_marker: str, new_marker: str
    ) -> bool:
        events = [envelope.model_dump_json().encode() for envelope in envelopes]
        entries = [value for event in events for value in (event, self._signer.sign(event))]
        keys = (self._stream, self._marker_key)
        return bool(
            await self._redis.run_script(
                _APPEND_IF_MARKER_MATCHES, keys, expected_marker, new_marker, *entries
            )
        )

    async def _marker_matches(self) -> bool:
        """Tell whether Redis still has the latest marker; if not, Redis may have lost its data."""
        if self._marker is None:
            return False
        stored_marker = await self._redis.execute("GET", self._marker_key)
        return bool(stored_marker == self._marker.encode())

    async def _republish_unconfirmed(self, leader: LeaderSession) -> None:
        """Append all relayed, unconfirmed events, in order, under a new marker.

        The new marker is stored in this object only at the end. So if this fails half-way, the next
        reconciliation starts again.
        """
        marker = str(new_id())
        await self._redis.execute("SET", self._marker_key, marker)
        after_seq, count = 0, 0
        while envelopes := await leader.get_unconfirmed(after_seq, _BATCH_SIZE):
            after_seq = envelopes[-1].seq
            accepted = [envelope for envelope in envelopes if self.accepts(envelope)]
            # all batches use the same marker, which shows whether Redis loses data between them
            if not await self._append_if_marker_matches(accepted, marker, new_marker=marker):
                return
            count += len(accepted)
        self._marker = marker
        if count:
            STREAM_REPUBLISHED.labels(self._publisher).inc(count)
            log.info("redis_stream.republished", stream=self._stream, count=count)

    async def _confirm_and_trim(self, leader: LeaderSession) -> None:
        """Confirm the events that all groups have acknowledged, then trim them from the stream."""
        while last_id := await self._minimum_acknowledged():
            entries = await self._redis.execute(
                "XRANGE", self._stream, "-", last_id, "COUNT", _BATCH_SIZE
            )
            if not entries:
                return
            envelopes = [
                envelope
                for _, fields in entries
                # Skip entries that this process has not signed: a forged entry could confirm an
                # event that no subscriber has received. An earlier leader may have used another
                # key; `_republish_unconfirmed` has appended its events again, signed with this key.
                if self._signer.is_own(fields) and (envelope := parse_envelope(fields))
            ]
            await leader.mark_confirmed(
                [envelope.event_id for envelope in envelopes], self._clock()
            )
            await self._redis.execute("XTRIM", self._stream, "MINID", next_entry_id(entries[-1][0]))
            STREAM_ENTRIES.labels(self._publisher, "trimmed").inc(len(entries))
            if len(entries) < _BATCH_SIZE:
                return

    async def _minimum_acknowledged(self) -> str:
        """Return the last entry id up to which all groups have acknowledged all entries.

        Returns an empty text if there is no such id, or if a group does not exist yet.
        """
        try:
            rows = await self._redis.execute("XINFO", "GROUPS", self._stream)
        except RedisUnavailable as error:
            if is_response_error(error, "no such key"):
                return ""
            raise
        groups = {row["name"]: row for row in map(parse_group_info, rows)}
        if not groups.keys() >= set(self._groups):
            return ""
        acknowledged = [await self._acknowledged_up_to(name, groups[name]) for name in self._groups]
        minimum = min(acknowledged)
        return "" if minimum <= (0, 0) else f"{minimum[0]}-{minimum[1]}"

    async def _acknowledged_up_to(self, group: str, row: Mapping[str, Any]) -> tuple[int, int]:
        """Return the last entry id up to which the group has acknowledged all entries."""
        if row["pending"]:
            pending = await self._redis.execute("XPENDING", self._stream, group)
            if pending["min"]:
                return previous_entry_id(parse_entry_id(pending["min"]))
        return parse_entry_id(row["last-delivered-id"])

    def _on_disconnect(self, error: RedisUnavailable) -> None:
        self._marker = None
        if not self._is_disconnected:
            log.warning("redis_stream.publish_unavailable", stream=self._stream, error=str(error))
        self._is_disconnected = True
        STREAM_UNAVAILABLE.labels(self._publisher, "publish").set(1)

    def _on_reconnect(self) -> None:
        if self._is_disconnected:
            log.info("redis_stream.publish_recovered", stream=self._stream)
        self._is_disconnected = False
        STREAM_UNAVAILABLE.labels(self._publisher, "publish").set(0)
