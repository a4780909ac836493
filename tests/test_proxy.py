"""The proxy of the tests does to a line what it says it does."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from tests.proxy import Mode, Proxy

PATIENT = 30


class Echo:
    """Says everything twice, and keeps what it heard."""

    def __init__(self) -> None:
        self.heard = b""
        self.told = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while words := await reader.read(1000):
                self.heard += words
                self.told.set()
                writer.write(words * 2)
        writer.close()


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, words: bytes) -> None:
        self._writer.write(words)

    async def hears(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENT):
            return await self._reader.readexactly(count)

    async def hears_the_end(self) -> bytes:
        """Having hung up first."""
        self._writer.write_eof()
        async with asyncio.timeout(PATIENT):
            return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


Call = Callable[[Proxy], Awaitable[Caller]]


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo.answer, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1], delay=0.2) as proxy:
        yield proxy
    server.close()


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    callers = []

    async def call(proxy: Proxy) -> Caller:
        callers.append(Caller(*await asyncio.open_connection("127.0.0.1", proxy.port)))
        return callers[-1]

    yield call
    for caller in callers:
        await caller.close()


async def test_data_and_close_are_forwarded(proxy: Proxy, call: Call) -> None:
    caller = await call(proxy)

    caller.say(b"ab")

    assert await caller.hears(4) == b"abab"
    assert await caller.hears_the_end() == b""
    assert proxy.connections == 1


async def test_requests_are_counted_by_path(proxy: Proxy, call: Call) -> None:
    caller = await call(proxy)

    for _ in range(2):
        caller.say(b"POST /a HTTP/1.1\r\n\r\n")
        await caller.hears(2 * len(b"POST /a HTTP/1.1\r\n\r\n"))
    caller.say(b"GET /b HTTP/1.1\r\n\r\n")
    await caller.hears(1)

    assert proxy.requests == {"/a": 2, "/b": 1}


async def test_delay_applies_both_ways_in_order(proxy: Proxy, echo: Echo, call: Call) -> None:
    caller = await call(proxy)
    await proxy.switch(Mode.DELAY)
    begun = time.monotonic()

    caller.say(b"a")
    await caller.hears(2)
    caller.say(b"b")
    await proxy.switch(Mode.PASS)
    caller.say(b"c")

    assert time.monotonic() - begun > 2 * proxy.delay
    await caller.hears(4)
    assert echo.heard == b"abc"


async def test_blackhole_holds_data_until_restored(proxy: Proxy, echo: Echo, call: Call) -> None:
    standing = await call(proxy)
    standing.say(b"a")
    await standing.hears(2)
    await proxy.switch(Mode.BLACKHOLE)
    late = await call(proxy)

    standing.say(b"b")
    late.say(b"c")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await standing.hears(1)
    assert echo.heard == b"a"
    await proxy.switch(Mode.PASS)

    assert await standing.hears(2) == b"bb"
    assert await late.hears(2) == b"cc"


async def test_close_during_blackhole_is_forwarded_later(proxy: Proxy, echo: Echo) -> None:
    """As the network does with a packet that is sent again."""
    await proxy.switch(Mode.BLACKHOLE)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"late")
    writer.close()
    await writer.wait_closed()

    await proxy.switch(Mode.PASS)

    async with asyncio.timeout(PATIENT):
        await echo.told.wait()
    assert echo.heard == b"late"
    assert reader.at_eof()


async def test_reset_ends_open_and_new_connections(proxy: Proxy, echo: Echo, call: Call) -> None:
    standing = await call(proxy)
    standing.say(b"a")
    await standing.hears(2)

    await proxy.switch(Mode.RESET)

    with pytest.raises(ConnectionResetError):
        await standing.hears(1)
    with pytest.raises(ConnectionResetError):
        await (await call(proxy)).hears(1)
    assert echo.heard == b"a"


async def test_response_is_lost_after_request_is_delivered(
    proxy: Proxy, echo: Echo, call: Call
) -> None:
    await proxy.switch(Mode.LOSE_ANSWERS)
    caller = await call(proxy)

    caller.say(b"a")

    with pytest.raises(ConnectionResetError):
        await caller.hears(1)
    assert echo.heard == b"a"


async def test_cut_proxy_refuses_connections_until_restored(proxy: Proxy, call: Call) -> None:
    port, standing = proxy.port, await call(proxy)
    standing.say(b"a")
    await standing.hears(2)

    await proxy.switch(Mode.CUT)
    with pytest.raises(ConnectionResetError):
        await standing.hears(1)
    with pytest.raises(ConnectionRefusedError):
        await call(proxy)
    await proxy.switch(Mode.PASS)

    caller = await call(proxy)
    caller.say(b"b")
    assert await caller.hears(2) == b"bb"
    assert proxy.port == port


async def test_missing_target_is_a_reset(proxy: Proxy, call: Call) -> None:
    async with Proxy(proxy.port) as beyond:
        await proxy.switch(Mode.CUT)

        with pytest.raises(ConnectionResetError):
            await (await call(beyond)).hears(1)
