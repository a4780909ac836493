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

from markethall.shared.clock import Clock
from markethall.shared.errors import Unavailable
from markethall.shared.events import DirectPipe, Envelope, Inbox, Lead
from markethall.shared.ids import new_id
from markethall.shared.metrics import STREAM_ENTRIES, STREAM_RESENT
from markethall.shared.redis import RedisAway, RedisClient, Script

log = structlog.get_logger("markethall.streams")

# adds entries only where the stream is as we left it: a marker tells, that goes with every batch
_ADD: Final = Script("""
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
for i = 3, #ARGV do redis.call('XADD', KEYS[1], '*', 'event', ARGV[i]) end
redis.call('SET', KEYS[2], ARGV[2])
return 1
""")
_BATCH: Final = 500
# the one who reads is the leader of its context, whoever that is
_READER: Final = "leader"

Entry = tuple[bytes, Mapping[bytes, bytes] | None]


def stream_of(publisher: str) -> str:
    return f"markethall:events:{publisher}"


@dataclass(frozen=True)
class Pace:
    """Times in seconds. `stale`: how long an entry may lie unacknowledged with somebody.

    `batch`: entries that are taken at once.
    """

    block: float = 0.5
    claim: float = 15.0
    stale: float = 60.0
    longest_wait: float = 5.0
    batch: int = _BATCH


class StreamPipe:
    """The publisher's end. `listeners`: group -> the types of events that it wants.

    Used by the relay of the leader alone, one call at a time.
    """

    def __init__(
        self,
        publisher: str,
        listeners: Mapping[str, frozenset[str]],
        redis: RedisClient,
        clock: Clock,
    ) -> None:
        self._publisher = publisher
        self._stream = stream_of(publisher)
        self._groups = sorted(listeners)
        self._wanted = frozenset[str]().union(*listeners.values())
        self._redis = redis
        self._clock = clock
        # as whoever led before us has left it: nobody knows, so everything is sent again
        self._marker: str | None = None
        self._away = False

    def wants(self, envelope: Envelope) -> bool:
        return envelope.type in self._wanted

    def forget(self) -> None:
        """Somebody else may have led meanwhile."""
        self._marker = None

    async def send(self, envelopes: Sequence[Envelope]) -> None:
        """Add them, if the stream is as we know it. What is not added now is sent again later."""
        wanted = [envelope for envelope in envelopes if self.wants(envelope)]
        if not wanted or self._marker is None:
            return
        try:
            await self._add(wanted)
        except RedisAway as error:
            self._lost(error)

    async def tend(self, lead: Lead) -> None:
        """Send again what may be lost, confirm what has arrived, forget what is confirmed.

        Raises Unavailable when the outbox cannot be read.
        """
        try:
            if not await self._is_as_left():
                await self._send_again(lead)
            await self._confirm(lead)
        except RedisAway as error:
            self._lost(error)
        else:
            self._found()

    async def _add(self, envelopes: Sequence[Envelope]) -> None:
        marker = str(new_id())
        entries = [envelope.model_dump_json() for envelope in envelopes]
        keys = (self._stream, f"{self._stream}:marker")
        done = await self._redis.run_script(_ADD, keys, self._marker or "", marker, *entries)
        self._marker = marker if done else None
        if done:
            STREAM_ENTRIES.labels(self._publisher, "added").inc(len(entries))
        else:
            log.warning("stream.not_as_it_was", stream=self._stream)

    async def _is_as_left(self) -> bool:
        """Asked, because it may have come back empty while there was nothing to add."""
        if self._marker is None:
            return False
        there = await self._redis.run("GET", f"{self._stream}:marker")
        return bool(there == self._marker.encode())

    async def _send_again(self, lead: Lead) -> None:
        """All that was published and not confirmed, in order; we trust the marker only at the end.

        Who dies half-way leaves a marker that nobody knows, and the next one begins anew. So do we
        where Redis is wiped half-way: the first ones are lost again.
        """
        marker = str(new_id())
        keys = (self._stream, f"{self._stream}:marker")
        await self._redis.run("SET", keys[1], marker)
        after, count = 0, 0
        while envelopes := await lead.unconfirmed(after, _BATCH):
            after = envelopes[-1].seq
            entries = [one.model_dump_json() for one in envelopes if self.wants(one)]
            if not await self._redis.run_script(_ADD, keys, marker, marker, *entries):
                return
            count += len(entries)
        self._marker = marker
        if count:
            STREAM_RESENT.labels(self._publisher).inc(count)
            log.info("stream.sent_again", stream=self._stream, count=count)

    async def _confirm(self, lead: Lead) -> None:
        """Behind the slowest group nothing is needed any more. Redis forgets it after we do."""
        while until := await self._behind_the_slowest():
            entries = await self._redis.run("XRANGE", self._stream, "-", until, "COUNT", _BATCH)
            if not entries:
                return
            envelopes = [envelope for _, fields in entries if (envelope := _read(fields))]
            await lead.mark_confirmed([envelope.event_id for envelope in envelopes], self._clock())
            await self._redis.run("XTRIM", self._stream, "MINID", _next(entries[-1][0]))
            STREAM_ENTRIES.labels(self._publisher, "trimmed").inc(len(entries))
            if len(entries) < _BATCH:
                return

    async def _behind_the_slowest(self) -> str:
        """The last entry that all have taken; empty where there is none, or a group is missing."""
        try:
            rows = await self._redis.run("XINFO", "GROUPS", self._stream)
        except RedisAway as error:
            if _answered(error, "no such key"):
                return ""
            raise
        groups = {row["name"]: row for row in map(_by_name, rows)}
        if not groups.keys() >= set(self._groups):
            return ""
        taken = [await self._taken(name, groups[name]) for name in self._groups]
        slowest = min(taken)
        return "" if slowest <= (0, 0) else f"{slowest[0]}-{slowest[1]}"

    async def _taken(self, group: str, row: Mapping[str, Any]) -> tuple[int, int]:
        """Up to here the group has acknowledged everything."""
        if not row["pending"]:
            return _position(row["last-delivered-id"])
        pending = await self._redis.run("XPENDING", self._stream, group)
        first = pending["min"]
        return _before(_position(first)) if first else _position(row["last-delivered-id"])

    def _lost(self, error: RedisAway) -> None:
        self._marker = None
        if not self._away:
            log.warning("stream.away", stream=self._stream, error=str(error))
        self._away = True

    def _found(self) -> None:
        if self._away:
            log.info("stream.back", stream=self._stream)
        self._away = False


class StreamReader:
    """The listener's end: takes entries into the inbox, then acknowledges them.

    Runs where the context's background work is led, so one at a time: that keeps the order.
    """

    def __init__(  # noqa: PLR0917 - whose stream, who listens, by what
        self,
        publisher: str,
        listener: str,
        pipe: DirectPipe,
        inbox: Inbox,
        redis: RedisClient,
        pace: Pace | None = None,
    ) -> None:
        self._stream = stream_of(publisher)
        self._publisher = publisher
        self._group = listener
        self._pipe = pipe
        self._inbox = inbox
        self._redis = redis
        self._pace = pace or Pace()
        self._away = False

    async def run(self) -> None:
        """Until cancelled. Waits for Redis, and for the inbox, for as long as it takes."""
        wait = 0.1
        while True:
            try:
                await self._read_on(self._found)
            except (RedisAway, Unavailable) as error:
                wait = 0.1 if not self._away else min(wait * 2, self._pace.longest_wait)
                self._lost(error)
            # jittered, so that not all come back at once
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - no secret

    async def _read_on(self, works: Callable[[], None]) -> None:
        """First what was read and not acknowledged, then what is new: nothing is overtaken.

        Nobody else reads while we lead, so whatever is pending was left by somebody who has died,
        or by ourselves when the inbox was away.
        """
        await self._make_group()
        await self._claim(idle=0)
        claim_at = _now() + self._pace.claim
        while True:
            await self._take(await self._new_entries())
            works()
            if _now() >= claim_at:
                await self._claim(idle=self._pace.stale)
                claim_at = _now() + self._pace.claim

    async def _make_group(self) -> None:
        """From the very beginning: what came before we did is for us too."""
        try:
            await self._redis.run("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")
        except RedisAway as error:
            if not _answered(error, "BUSYGROUP"):
                raise

    async def _new_entries(self) -> Sequence[Entry]:
        block = self._pace.block
        answer = await self._redis.run(
            *("XREADGROUP", "GROUP", self._group, _READER, "COUNT", self._pace.batch),
            *("BLOCK", int(block * 1000), "STREAMS", self._stream, ">"),
            until=self._redis.deadline(block + self._redis.timeout),
        )
        return _entries(answer)

    async def _claim(self, idle: float) -> None:
        cursor = b"0-0"
        while True:
            answer = await self._redis.run(
                *("XAUTOCLAIM", self._stream, self._group, _READER, int(idle * 1000)),
                *(cursor, "COUNT", self._pace.batch),
            )
            cursor = answer[0]
            await self._take([_entry(item) for item in answer[1]])
            if cursor == b"0-0":
                return

    async def _take(self, entries: Sequence[Entry]) -> None:
        """Into the inbox, in order; acknowledged only then. Raises Unavailable, RedisAway."""
        if not entries:
            return
        run: list[Envelope] = []
        for number, fields in entries:
            envelope = _read(fields)
            if envelope is None or not _opens(envelope, self._pipe):
                await self._put_away(number, fields, envelope)
            else:
                run.append(envelope)
        await self._pipe.send(run)
        await self._redis.run("XACK", self._stream, self._group, *(n for n, _ in entries))
        STREAM_ENTRIES.labels(self._publisher, "taken").inc(len(entries))

    async def _put_away(
        self, number: bytes, fields: Mapping[bytes, bytes] | None, envelope: Envelope | None
    ) -> None:
        """What nobody can read is a dead letter: seen, kept, and in nobody's way."""
        if fields is None:
            return  # trimmed: it was confirmed
        log.error("stream.unreadable", stream=self._stream, entry=number.decode())
        letter = envelope or _unreadable(self._stream, number, fields)
        handler = f"{self._group}.unreadable"
        await self._inbox.accept_dead(handler, letter, f"unreadable entry {number.decode()}")

    def _lost(self, error: Exception) -> None:
        if not self._away:
            log.warning("stream.not_read", stream=self._stream, error=str(error))
        self._away = True

    def _found(self) -> None:
        if self._away:
            log.info("stream.read_again", stream=self._stream)
        self._away = False


def _read(fields: Mapping[bytes, bytes] | None) -> Envelope | None:
    try:
        return Envelope.model_validate_json((fields or {})[b"event"])
    except (ValidationError, KeyError):
        return None


def _opens(envelope: Envelope, pipe: DirectPipe) -> bool:
    """What we do not listen to may be of any shape."""
    if not pipe.wants(envelope):
        return True
    try:
        envelope.open()
    except (ValueError, KeyError):
        return False
    return True


def _unreadable(stream: str, number: bytes, fields: Mapping[bytes, bytes]) -> Envelope:
    """Its id comes from its place, so that the same one is buried once."""
    text = repr(dict(fields))[:10_000].replace("\\x00", "")
    identity = uuid5(NAMESPACE_URL, f"{stream}/{number.decode()}")
    return Envelope(
        event_id=identity,
        type="unreadable",
        version=0,
        key=identity,
        payload=text,
        occurred_at=_time_of(number),
        request_id="",
    )


def _entries(answer: Any) -> Sequence[Entry]:
    return [_entry(item) for _, items in answer or () for item in items]


def _entry(item: Any) -> Entry:
    number, fields = item
    return number, fields or None


def _by_name(row: Sequence[Any]) -> dict[str, Any]:
    """The flat list of names and values that a RESP2 server sends."""
    pairs = zip(row[::2], row[1::2], strict=True)
    fields = {name.decode(): value for name, value in pairs}
    return {**fields, "name": fields["name"].decode()}


def _position(number: bytes) -> tuple[int, int]:
    milliseconds, _, count = number.partition(b"-")
    return int(milliseconds), int(count)


def _before(position: tuple[int, int]) -> tuple[int, int]:
    milliseconds, count = position
    return (milliseconds, count - 1) if count else (milliseconds - 1, 2**63)


def _next(number: bytes) -> str:
    milliseconds, count = _position(number)
    return f"{milliseconds}-{count + 1}"


def _time_of(number: bytes) -> datetime:
    return datetime.fromtimestamp(_position(number)[0] / 1000, UTC)


def _answered(error: RedisAway, words: str) -> bool:
    """It is there, and says so."""
    return isinstance(error.__cause__, ResponseError) and words in str(error)


def _now() -> float:
    return asyncio.get_running_loop().time()
