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

from markethall.shared.breaker import Breaker, BreakerOpen

T = TypeVar("T")
Word = str | bytes | int


class RedisAway(Exception):
    """Redis did not do it, or did not say so in time. Internal: no client ever sees it."""


class Script:
    """A Lua script, called by its hash and sent only to a server that does not know it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = sha1(source.encode(), usedforsecurity=False).hexdigest()


class RedisClient:
    """Owns the connections to one Redis; nothing connects before the first command.

    A command has `timeout` seconds for everything: a free connection, connecting, sending, reading.
    Whatever goes wrong is `RedisAway`. After some failures in a row the breaker refuses at once, so
    that a dead or paused server costs nothing but one late probe in a while. Nothing is retried: a
    command that timed out may have run. Without a URL it is always away.
    """

    def __init__(
        self,
        url: str | None,
        *,
        timeout: float = 0.1,
        connections: int = 16,
        breaker: Breaker | None = None,
    ) -> None:
        self.timeout = timeout
        self.breaker = breaker or Breaker(time.monotonic)
        self._redis = _open(url, connections) if url else None
        # the pool of redis-py raises when it is empty: here the next one waits, first come first
        self._free = asyncio.Semaphore(connections)

    @property
    def configured(self) -> bool:
        """Whether there is a Redis at all."""
        return self._redis is not None

    def deadline(self, seconds: float | None = None) -> float:
        """The loop's time after so many seconds, or after the timeout: for several commands."""
        now = asyncio.get_running_loop().time()
        return now + (self.timeout if seconds is None else seconds)

    async def run(self, *command: Word, until: float | None = None) -> Any:
        """The answer to one command as redis-py reads it, texts as bytes.

        `until` is a deadline() shared with other commands.
        """
        return await self._guarded(lambda: self._execute(*command), until)

    async def run_script(
        self, script: Script, keys: Sequence[Word], *args: Word, until: float | None = None
    ) -> Any:
        """The answer of a Lua script: one round trip, two where the server has forgotten it."""
        words = (len(keys), *keys, *args)

        async def call() -> Any:
            try:
                return await self._execute("EVALSHA", script.sha, *words)
            except NoScriptError:
                return await self._execute("EVAL", script.source, *words)

        return await self._guarded(call, until)

    async def ping(self) -> bool:
        """Whether Redis answers now. Asks even while the breaker is open, and tells it."""
        if self._redis is None:
            return False
        try:
            await self._bounded(lambda: self._execute("PING"), None)
        except (_Silence, ResponseError):
            self.breaker.fail()
            return False
        self.breaker.succeed()
        return True

    @asynccontextmanager
    async def subscribed(
        self, channel: str, pulse: float
    ) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
        """Gives a function that waits for the next message. Raises RedisAway, there too.

        A connection that has been silent for `pulse` seconds is asked, and has as long to answer.
        """
        if self._redis is None:
            raise RedisAway("there is no Redis")
        subscription = Subscription(self._redis.pubsub(), pulse)
        try:
            await subscription.begin(channel)
            yield subscription.following
        except (OSError, RedisError) as error:
            raise RedisAway(str(error)) from error
        finally:
            with suppress(Exception):
                await subscription.end()

    async def close(self) -> None:
        """Close all connections; from now on Redis is away."""
        redis, self._redis = self._redis, None
        if redis is not None:
            # a paused server may not take part in the closing of a TLS connection
            with suppress(Exception):
                async with asyncio.timeout(self.timeout):
                    await redis.aclose()

    async def _execute(self, *words: Word) -> Any:
        if self._redis is None:
            raise ConnectionError("closed")
        return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]  # theirs

    async def _guarded(self, call: Callable[[], Awaitable[T]], until: float | None) -> T:
        if self._redis is None:
            raise RedisAway("there is no Redis")
        try:
            with self.breaker.guard(_Silence):
                return await self._bounded(call, until)
        except BreakerOpen:
            raise RedisAway("Redis was away a moment ago") from None
        except ResponseError as error:
            # It answers, if with a no (wrong type, out of memory): that is no reason to open.
            self.breaker.succeed()
            raise RedisAway(str(error)) from error
        except _Silence as error:
            raise RedisAway(str(error)) from error.__cause__

    async def _bounded(self, call: Callable[[], Awaitable[T]], until: float | None) -> T:
        when = self.deadline() if until is None else until
        try:
            async with asyncio.timeout_at(when), self._free:
                return await call()
        except ResponseError:
            raise
        except Exception as error:
            raise _Silence(str(error) or type(error).__name__) from error


class Subscription:
    """A connection that hears one channel."""

    def __init__(self, pubsub: PubSub, pulse: float) -> None:
        self._pubsub = pubsub
        self._pulse = pulse

    async def begin(self, channel: str) -> None:
        async with asyncio.timeout(2 * self._pulse):
            await self._pubsub.subscribe(channel)
            while (await self._next() or {}).get("type") != "subscribe":
                pass

    async def following(self) -> bytes:
        asked = False
        while True:
            message = await self._next()
            if message is None:
                if asked:
                    raise TimeoutError("no answer to a ping")
                await self._pubsub.ping()
            elif message["type"] == "message":
                return bytes(message["data"])
            asked = message is None

    async def end(self) -> None:
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # theirs

    async def _next(self) -> Any:
        return await self._pubsub.get_message(timeout=self._pulse)


class _Silence(Exception):
    """No answer, or none that can be read."""


def _open(url: str, connections: int) -> "Redis":
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
        max_connections=connections + 1,
        protocol=2,
        driver_info=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis.from_pool(pool)
