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
async def line(echo: Echo) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(echo.answer, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1], delay=0.2) as line:
        yield line
    server.close()


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    callers = []

    async def call(line: Proxy) -> Caller:
        callers.append(Caller(*await asyncio.open_connection("127.0.0.1", line.port)))
        return callers[-1]

    yield call
    for caller in callers:
        await caller.close()


async def test_words_pass_and_so_does_the_end(line: Proxy, call: Call) -> None:
    caller = await call(line)

    caller.say(b"ab")

    assert await caller.hears(4) == b"abab"
    assert await caller.hears_the_end() == b""
    assert line.connections == 1


async def test_requests_are_counted_by_path(line: Proxy, call: Call) -> None:
    caller = await call(line)

    for _ in range(2):
        caller.say(b"POST /a HTTP/1.1\r\n\r\n")
        await caller.hears(2 * len(b"POST /a HTTP/1.1\r\n\r\n"))
    caller.say(b"GET /b HTTP/1.1\r\n\r\n")
    await caller.hears(1)

    assert line.asked == {"/a": 2, "/b": 1}


async def test_a_delay_is_for_each_way_and_keeps_the_order(
    line: Proxy, echo: Echo, call: Call
) -> None:
    caller = await call(line)
    await line.switch(Mode.DELAY)
    begun = time.monotonic()

    caller.say(b"a")
    await caller.hears(2)
    caller.say(b"b")
    await line.switch(Mode.PASS)
    caller.say(b"c")

    assert time.monotonic() - begun > 2 * line.delay
    await caller.hears(4)
    assert echo.heard == b"abc"


async def test_a_blackhole_swallows_until_the_line_is_whole_again(
    line: Proxy, echo: Echo, call: Call
) -> None:
    standing = await call(line)
    standing.say(b"a")
    await standing.hears(2)
    await line.switch(Mode.BLACKHOLE)
    late = await call(line)

    standing.say(b"b")
    late.say(b"c")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await standing.hears(1)
    assert echo.heard == b"a"
    await line.switch(Mode.PASS)

    assert await standing.hears(2) == b"bb"
    assert await late.hears(2) == b"cc"


async def test_who_gave_up_in_a_blackhole_is_heard_all_the_same(line: Proxy, echo: Echo) -> None:
    """As the network does with a packet that is sent again."""
    await line.switch(Mode.BLACKHOLE)
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    writer.write(b"late")
    writer.close()
    await writer.wait_closed()

    await line.switch(Mode.PASS)

    async with asyncio.timeout(PATIENT):
        await echo.told.wait()
    assert echo.heard == b"late"
    assert reader.at_eof()


async def test_a_reset_ends_what_stands_and_what_comes(line: Proxy, echo: Echo, call: Call) -> None:
    standing = await call(line)
    standing.say(b"a")
    await standing.hears(2)

    await line.switch(Mode.RESET)

    with pytest.raises(ConnectionResetError):
        await standing.hears(1)
    with pytest.raises(ConnectionResetError):
        await (await call(line)).hears(1)
    assert echo.heard == b"a"


async def test_an_answer_is_lost_and_the_question_is_not(
    line: Proxy, echo: Echo, call: Call
) -> None:
    await line.switch(Mode.LOSE_ANSWERS)
    caller = await call(line)

    caller.say(b"a")

    with pytest.raises(ConnectionResetError):
        await caller.hears(1)
    assert echo.heard == b"a"


async def test_a_cut_line_refuses_until_it_is_mended(line: Proxy, call: Call) -> None:
    port, standing = line.port, await call(line)
    standing.say(b"a")
    await standing.hears(2)

    await line.switch(Mode.CUT)
    with pytest.raises(ConnectionResetError):
        await standing.hears(1)
    with pytest.raises(ConnectionRefusedError):
        await call(line)
    await line.switch(Mode.PASS)

    caller = await call(line)
    caller.say(b"b")
    assert await caller.hears(2) == b"bb"
    assert line.port == port


async def test_nobody_at_the_other_end_is_a_reset(line: Proxy, call: Call) -> None:
    async with Proxy(line.port) as beyond:
        await line.switch(Mode.CUT)

        with pytest.raises(ConnectionResetError):
            await (await call(beyond)).hears(1)
