"""The invalidation bus: sends cache invalidations to the other processes."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, Protocol

import structlog

from markethall.shared.cache.keys import HEARTBEAT_INTERVAL, CacheKey, Invalidation
from markethall.shared.cache.redis_cache import RedisChannel
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.persistence.postgres_notifications import (
    MAX_MESSAGE_BYTES,
    PostgresNotifications,
)
from markethall.shared.persistence.redis_client import RedisUnavailable

log = structlog.get_logger("markethall.cache")

_RETRY_INTERVAL: Final = 0.25  # seconds
# Seconds between two messages. Invalidations that arrive in this time share the next message,
# because each commit with a NOTIFY takes a lock of the whole Postgres server.
_MIN_NOTIFY_INTERVAL: Final = 0.02
# Seconds. A closed connection is noticed at once; a ping notices a connection that is silent.
_PING_INTERVAL: Final = 2.0
# If more invalidations than this are pending, the whole namespaces of their keys are invalidated
# instead. This limits the memory and the size of the message.
_MAX_PENDING: Final = 1000
_UNAVAILABLE_ERRORS: Final = (RedisUnavailable, Unavailable)


class InvalidationListener(Protocol):
    def on_invalidated(self, invalidations: Collection[Invalidation]) -> None:
        """Drop the entries that another process has invalidated."""

    def on_connection_changed(self, connected: bool) -> None:
        """Handle the start or the end of the bus connection.

        Messages may have been missed before the start, and will be missed after the end.
        """


class InvalidationListeners:
    """Several listeners that share one bus."""

    def __init__(self, *listeners: InvalidationListener) -> None:
        self._listeners = listeners

    def on_invalidated(self, invalidations: Collection[Invalidation]) -> None:
        for listener in self._listeners:
            listener.on_invalidated(invalidations)

    def on_connection_changed(self, connected: bool) -> None:
        for listener in self._listeners:
            listener.on_connection_changed(connected)


class PostgresChannel:
    """Sends messages with NOTIFY and receives them with LISTEN."""

    max_message_bytes = MAX_MESSAGE_BYTES

    def __init__(self, postgres: Postgres) -> None:
        self._notifications = PostgresNotifications(
            postgres, "markethall_cache", HEARTBEAT_INTERVAL, _PING_INTERVAL
        )

    async def send(self, _: Collection[Invalidation], message: bytes) -> None:
        await self._notifications.send(message)
        await asyncio.sleep(_MIN_NOTIFY_INTERVAL)

    def subscribe(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[bytes]]]:
        return self._notifications.subscribe()


class InvalidationBus:
    """Sends the invalidations of this process to other processes, and receives theirs.

    If sending fails, the same invalidations are sent again later.
    """

    def __init__(self, channel: RedisChannel | PostgresChannel) -> None:
        self._channel = channel
        self._sender = new_id().hex.encode()
        self._pending: set[Invalidation] = set()
        self._sending: set[Invalidation] = set()
        self._has_pending = asyncio.Event()

    def publish(self, invalidations: Collection[Invalidation]) -> None:
        """Add the invalidations to the next message. Never raises and never waits."""
        self._pending |= set(invalidations)
        if len(self._pending) > _MAX_PENDING:
            self._pending = _namespaces_of(self._pending)
        self._has_pending.set()

    def is_pending(self, key: CacheKey) -> bool:
        names = {key, (key[0], None)}
        return not (names.isdisjoint(self._pending) and names.isdisjoint(self._sending))

    async def listen(self, listener: InvalidationListener) -> None:
        """Send and receive until cancelled; connect again after every failure."""
        # created again here: an asyncio.Event can be used only in the event loop of its first wait,
        # and an earlier `listen` may have run in another event loop
        self._has_pending = asyncio.Event()
        await asyncio.gather(
            _keep_running(self._send), _keep_running(lambda: self._receive(listener))
        )

    async def flush(self) -> None:
        """Try once to send the pending invalidations. Errors of an outage are ignored."""
        with suppress(*_UNAVAILABLE_ERRORS):
            await self._send_pending()

    async def _send(self) -> None:
        while True:
            await self._send_pending()
            await self._has_pending.wait()
            self._has_pending.clear()

    async def _send_pending(self) -> None:
        # `_pending` is emptied before sending, so that a key that is invalidated again during the
        # sending is in the next message too
        self._sending, self._pending = self._sending | self._pending, set()
        if self._sending:
            message = self._encode(self._sending)
            if len(message) > self._channel.max_message_bytes:
                self._sending = _namespaces_of(self._sending)
                message = self._encode(self._sending)
            await self._channel.send(self._sending, message)
        self._sending = set()

    async def _receive(self, listener: InvalidationListener) -> None:
        async with self._channel.subscribe() as next_message:
            try:
                listener.on_connection_changed(True)
                while True:
                    listener.on_invalidated(self._decode(await next_message()))
            finally:
                listener.on_connection_changed(False)

    def _encode(self, invalidations: Collection[Invalidation]) -> bytes:
        return self._sender + json.dumps(list(invalidations)).encode()

    def _decode(self, message: bytes) -> Sequence[Invalidation]:
        """Return the invalidations in a message.

        Returns an empty list for a message of this process, and for a message in the format of
        another release.
        """
        if message.startswith(self._sender):
            return []
        try:
            pairs = json.loads(message[len(self._sender) :])
            return [(str(namespace), key) for namespace, key in pairs]
        except (ValueError, TypeError):
            return []


async def _keep_running(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await step()
        except _UNAVAILABLE_ERRORS:
            pass
        except Exception:  # any: if this loop ended, the process would serve stale values
            log.exception("cache.invalidation_listener_failed")
        await asyncio.sleep(_RETRY_INTERVAL)


def _namespaces_of(invalidations: Collection[Invalidation]) -> set[Invalidation]:
    return {(namespace, None) for namespace, _ in invalidations}
