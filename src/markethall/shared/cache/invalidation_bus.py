"""Invalidations between processes: over Redis, or over the database that they share."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from markethall.shared.cache.ports import CacheKey, Invalidation, InvalidationListener
from markethall.shared.cache.redis_cache import TOMBSTONE_TTL, new_token, redis_name
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.persistence.postgres import Connection, Postgres
from markethall.shared.persistence.redis_client import LuaScript, RedisClient, RedisUnavailable

log = structlog.get_logger("markethall.cache")

# seconds: a connection that was silent for so long is checked, and has as long to answer
HEARTBEAT_INTERVAL: Final = 0.5
_RETRY_INTERVAL: Final = 0.25
# seconds to collect invalidations: the commit of a NOTIFY takes a lock of the whole server
_BATCH_DELAY: Final = 0.02
_MAX_BATCH: Final = 1000
_MAX_PAYLOAD_BYTES: Final = 7500  # Postgres takes less than 8000
_REDIS_CHANNEL: Final = "markethall:cache"
_POSTGRES_CHANNEL: Final = "markethall_cache"

# names <- token, milliseconds, channel, message
_INVALIDATE = LuaScript("""
for _, name in ipairs(KEYS) do redis.call('SET', name, ARGV[1], 'PX', ARGV[2]) end
redis.call('PUBLISH', ARGV[3], ARGV[4])
""")


class InvalidationBus(ABC):
    """Sends the invalidations of this process to all others, and receives theirs.

    What was not sent successfully is sent again.
    """

    def __init__(self) -> None:
        self._pending: set[Invalidation] = set()
        self._sending: set[Invalidation] = set()
        self._wake = asyncio.Event()

    def publish(self, invalidations: Collection[Invalidation]) -> None:
        """Send these soon. Never raises, never waits."""
        self._pending = _bounded({*self._pending, *invalidations})
        self._wake.set()

    def is_pending(self, key: CacheKey) -> bool:
        names = {key, (key[0], None)}
        return not (names.isdisjoint(self._pending) and names.isdisjoint(self._sending))

    @abstractmethod
    async def listen(self, listener: InvalidationListener) -> None:
        """Send and receive until cancelled; connects again after every failure."""

    @abstractmethod
    async def flush(self) -> None:
        """Try once to send what is pending. Never raises."""

    async def _send_pending(self, send: Callable[[set[Invalidation]], Awaitable[None]]) -> None:
        # one that is published while it is being sent is pending again
        self._sending, self._pending = _bounded(self._sending | self._pending), set()
        await send(self._sending)
        self._sending = set()


class RedisInvalidationBus(InvalidationBus):
    """PUBLISH, in the script that writes the tombstones of RedisCache, and SUBSCRIBE."""

    def __init__(self, redis: RedisClient) -> None:
        super().__init__()
        self._redis = redis
        self._sender = new_token().hex().encode()

    async def listen(self, listener: InvalidationListener) -> None:
        self._wake = asyncio.Event()
        await asyncio.gather(_keep_running(self._send), _keep_running(self._receive, listener))

    async def flush(self) -> None:
        with suppress(RedisUnavailable):
            await self._send_pending(self._invalidate)

    async def _send(self) -> None:
        while True:
            await self._send_pending(self._invalidate)
            await self._wake.wait()
            self._wake.clear()

    async def _invalidate(self, batch: set[Invalidation]) -> None:
        if batch:
            names = [redis_name(*invalidation) for invalidation in batch]
            message = self._sender + _encode(batch).encode()
            arguments = (new_token(), int(TOMBSTONE_TTL * 1000), _REDIS_CHANNEL, message)
            await self._redis.run_script(_INVALIDATE, names, *arguments)

    async def _receive(self, listener: InvalidationListener) -> None:
        async with self._redis.subscribe(_REDIS_CHANNEL, HEARTBEAT_INTERVAL) as next_message:
            try:
                listener.on_connection_changed(True)
                while True:
                    message = await next_message()
                    if not message.startswith(self._sender):
                        listener.on_invalidated(_decode(message[len(self._sender) :]))
            finally:
                listener.on_connection_changed(False)


class PostgresInvalidationBus(InvalidationBus):
    """LISTEN and NOTIFY on a connection of its own."""

    def __init__(self, postgres: Postgres) -> None:
        super().__init__()
        self._postgres = postgres

    async def listen(self, listener: InvalidationListener) -> None:
        self._wake = asyncio.Event()
        await _keep_running(self._send_and_receive, listener)

    async def flush(self) -> None:
        if self._sending or self._pending:
            with suppress(Unavailable, TimeoutError):
                async with self._postgres.dedicated_connection() as session:
                    await self._notify(session)

    async def _send_and_receive(self, listener: InvalidationListener) -> None:
        failures: list[Exception] = []

        def on_notification(payload: str) -> None:
            try:
                listener.on_invalidated(_decode(payload))
            except Exception as error:  # noqa: BLE001 - asyncpg would only log it; raised below
                failures.append(error)
                self._wake.set()

        async with self._postgres.dedicated_connection() as session:
            await session.listen(_POSTGRES_CHANNEL, on_notification)
            try:
                listener.on_connection_changed(True)
                while not failures:
                    await self._notify(session)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(HEARTBEAT_INTERVAL):
                            await self._wake.wait()
                            await asyncio.sleep(_BATCH_DELAY)
                    self._wake.clear()
                raise failures[0]
            finally:
                listener.on_connection_changed(False)

    async def _notify(self, session: Connection) -> None:
        """Send what is pending; an empty message shows that the connection is alive."""

        async def send(batch: set[Invalidation]) -> None:
            payload = _encode(batch)
            if len(payload) > _MAX_PAYLOAD_BYTES:
                payload = _encode(_namespaces_of(batch))
            await session.notify(_POSTGRES_CHANNEL, payload)

        async with asyncio.timeout(HEARTBEAT_INTERVAL):
            await self._send_pending(send)


async def _keep_running(step: Callable[..., Awaitable[None]], *args: Any) -> None:
    while True:
        try:
            await step(*args)
        except (Unavailable, RedisUnavailable, TimeoutError):
            pass
        except Exception:  # a process that does not listen would keep stale values
            log.exception("cache.invalidation_listener_failed")
        await asyncio.sleep(_RETRY_INTERVAL)


def _bounded(invalidations: set[Invalidation]) -> set[Invalidation]:
    return invalidations if len(invalidations) <= _MAX_BATCH else _namespaces_of(invalidations)


def _namespaces_of(invalidations: Collection[Invalidation]) -> set[Invalidation]:
    return {(namespace, None) for namespace, _ in invalidations}


def _encode(invalidations: Collection[Invalidation]) -> str:
    return json.dumps(list(invalidations), separators=(",", ":"))


def _decode(message: str | bytes) -> Sequence[Invalidation]:
    """Return nothing for a message that `_encode` did not write."""
    try:
        return [(str(namespace), key) for namespace, key in json.loads(message)]
    except (ValueError, TypeError):
        return []
