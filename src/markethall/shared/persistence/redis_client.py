"""Redis, which may always be away: it holds what makes us faster, never what is true."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha1
from typing import Any, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from markethall.shared.kernel.circuit_breaker import Breaker, BreakerOpen

T = TypeVar("T")
CommandArgument = str | bytes | int


class RedisUnavailable(Exception):
    """Redis did not do it, or did not say so in time. Internal: no client ever sees it."""


class LuaScript:
    """A Lua script, called by its hash and sent only to a server that does not know it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisClient:
    """Owns the connections to one Redis; nothing connects before the first command.

    A command has `timeout` seconds for everything: a free connection, connecting, sending, reading.
    Whatever goes wrong is `RedisUnavailable`. After some failures in a row the breaker refuses at once, so
    that a dead or paused server costs nothing but one late probe in a while. Nothing is retried: a
    command that timed out may have run. Without a URL it is always away.
    """

    def __init__(
        self,
        url: str | None,
        *,
        timeout: float = 0.1,
        max_connections: int = 16,
        breaker: Breaker | None = None,
    ) -> None:
        self.timeout = timeout
        self.breaker = breaker or Breaker(time.monotonic)
        self._redis = _create_client(url, max_connections) if url else None
        # the pool of redis-py raises when it is empty: here the next one waits, first come first
        self._free_connections = asyncio.Semaphore(max_connections)

    @property
    def is_configured(self) -> bool:
        """Whether there is a Redis at all."""
        return self._redis is not None

    def deadline_in(self, seconds: float | None = None) -> float:
        """The loop's time after so many seconds, or after the timeout: for several commands."""
        now = asyncio.get_running_loop().time()
        return now + (self.timeout if seconds is None else seconds)

    async def execute(self, *command: CommandArgument, deadline: float | None = None) -> Any:
        """The answer to one command as redis-py reads it, texts as bytes.

        `until` is a deadline() shared with other commands.
        """
        return await self._run_with_breaker(lambda: self._send_command(*command), deadline)

    async def run_script(
        self,
        script: LuaScript,
        keys: Sequence[CommandArgument],
        *args: CommandArgument,
        deadline: float | None = None,
    ) -> Any:
        """The answer of a Lua script: one round trip, two where the server has forgotten it."""
        arguments = (len(keys), *keys, *args)

        async def evaluate() -> Any:
            try:
                return await self._send_command("EVALSHA", script.sha, *arguments)
            except NoScriptError:
                return await self._send_command("EVAL", script.source, *arguments)

        return await self._run_with_breaker(evaluate, deadline)

    async def ping(self) -> bool:
        """Whether Redis answers now. Asks even while the breaker is open, and tells it."""
        if self._redis is None:
            return False
        try:
            await self._run_with_deadline(lambda: self._send_command("PING"), None)
        except (_NoResponse, ResponseError):
            self.breaker.record_failure()
            return False
        self.breaker.record_success()
        return True

    @asynccontextmanager
    async def subscribe(
        self, channel: str, heartbeat_interval: float
    ) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
        """Gives a function that waits for the next message. Raises RedisUnavailable, there too.

        A connection that has been silent for `pulse` seconds is asked, and has as long to answer.
        """
        if self._redis is None:
            raise RedisUnavailable("there is no Redis")
        subscription = Subscription(self._redis.pubsub(), heartbeat_interval)
        try:
            await subscription.start(channel)
            yield subscription.next_message
        except (OSError, RedisError) as error:
            raise RedisUnavailable(str(error)) from error
        finally:
            with suppress(Exception):
                await subscription.close()

    async def close(self) -> None:
        """Close all connections; from now on Redis is away."""
        redis, self._redis = self._redis, None
        if redis is not None:
            # a paused server may not take part in the closing of a TLS connection
            with suppress(Exception):
                async with asyncio.timeout(self.timeout):
                    await redis.aclose()

    async def _send_command(self, *arguments: CommandArgument) -> Any:
        if self._redis is None:
            raise ConnectionError("closed")
        return await self._redis.execute_command(*arguments)  # type: ignore[no-untyped-call]  # theirs

    async def _run_with_breaker(
        self, operation: Callable[[], Awaitable[T]], deadline: float | None
    ) -> T:
        if self._redis is None:
            raise RedisUnavailable("there is no Redis")
        try:
            with self.breaker.guard(_NoResponse):
                return await self._run_with_deadline(operation, deadline)
        except BreakerOpen:
            raise RedisUnavailable("Redis was away a moment ago") from None
        except ResponseError as error:
            # It answers, if with a no (wrong type, out of memory): that is no reason to open.
            self.breaker.record_success()
            raise RedisUnavailable(str(error)) from error
        except _NoResponse as error:
            raise RedisUnavailable(str(error)) from error.__cause__

    async def _run_with_deadline(
        self, operation: Callable[[], Awaitable[T]], deadline: float | None
    ) -> T:
        expires_at = self.deadline_in() if deadline is None else deadline
        try:
            async with asyncio.timeout_at(expires_at), self._free_connections:
                return await operation()
        except ResponseError:
            raise
        except Exception as error:
            raise _NoResponse(str(error) or type(error).__name__) from error


class Subscription:
    """A connection that hears one channel."""

    def __init__(self, pubsub: PubSub, heartbeat_interval: float) -> None:
        self._pubsub = pubsub
        self._heartbeat_interval = heartbeat_interval

    async def start(self, channel: str) -> None:
        async with asyncio.timeout(2 * self._heartbeat_interval):
            await self._pubsub.subscribe(channel)
            while (await self._receive() or {}).get("type") != "subscribe":
                pass

    async def next_message(self) -> bytes:
        is_ping_pending = False
        while True:
            message = await self._receive()
            if message is None:
                if is_ping_pending:
                    raise TimeoutError("no answer to a ping")
                await self._pubsub.ping()
            elif message["type"] == "message":
                return bytes(message["data"])
            is_ping_pending = message is None

    async def close(self) -> None:
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # theirs

    async def _receive(self) -> Any:
        return await self._pubsub.get_message(timeout=self._heartbeat_interval)


class _NoResponse(Exception):
    """No answer, or none that can be read."""


def _create_client(url: str, max_connections: int) -> "Redis":
    """A client that leaves limits of time to us, and says nothing at the start of a connection.

    redis-py 8 by default retries ten times, waits five seconds, greets with four commands and lets
    the server lengthen the timeouts (maintenance notifications, RESP3 only). One deadline around
    the whole command needs no task per read and also covers the wait for a connection. When it
    strikes, or the caller is cancelled, redis-py drops the connection in the middle of which it
    was (`AbstractConnection.read_response`), so no late answer reaches the next command.
    """
    pool = ConnectionPool.from_url(
        url,
        # and one that listens
        max_connections=max_connections + 1,
        protocol=2,
        driver_info=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)
