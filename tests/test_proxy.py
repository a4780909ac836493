"""Test tests/proxy.py, the TCP proxy that injects faults."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from tests.proxy import Mode, Proxy

TIMEOUT_SECONDS = 30


class Echo:
    """A TCP server that sends all received data back twice, and stores it."""

    def __init__(self) -> None:
        self.received = b""
        self.has_received = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1000):
                self.received += data
                self.has_received.set()
                writer.write(data * 2)
        writer.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self, count: int) -> bytes:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await self._reader.readexactly(count)

    async def close_and_receive_rest(self) -> bytes:
        """Close the sending side and receive until the end."""
        self._writer.write_eof()
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()


Connect = Callable[[Proxy], Awaitable[Client]]


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
async def connect() -> AsyncIterator[Connect]:
    clients = []

    async def connect(proxy: Proxy) -> Client:
        clients.append(Client(*await asyncio.open_connection("127.0.0.1", proxy.port)))
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


async def test_data_and_close_are_forwarded(proxy: Proxy, connect: Connect) -> None:
    client = await connect(proxy)

    client.send(b"ab")

    assert await client.receive(4) == b"abab"
    assert await client.close_and_receive_rest() == b""
    assert proxy.connections == 1


async def test_requests_are_counted_by_path(proxy: Proxy, connect: Connect) -> None:
    client = await connect(proxy)

    for _ in range(2):
        client.send(b"POST /a HTTP/1.1\r\n\r\n")
        await client.receive(2 * len(b"POST /a HTTP/1.1\r\n\r\n"))
    client.send(b"GET /b HTTP/1.1\r\n\r\n")
    await client.receive(1)

    assert proxy.requests == {"/a": 2, "/b": 1}


async def test_delay_applies_both_ways_in_order(proxy: Proxy, echo: Echo, connect: Connect) -> None:
    client = await connect(proxy)
    await proxy.switch(Mode.DELAY)
    started = time.monotonic()

    client.send(b"a")
    await client.receive(2)
    client.send(b"b")
    await proxy.switch(Mode.PASS)
    client.send(b"c")

    assert time.monotonic() - started > 2 * proxy.delay
    await client.receive(4)
    assert echo.received == b"abc"


async def test_blackhole_holds_data_until_restored(
    proxy: Proxy, echo: Echo, connect: Connect
) -> None:
    established = await connect(proxy)
    established.send(b"a")
    await established.receive(2)
    await proxy.switch(Mode.BLACKHOLE)
    new = await connect(proxy)

    established.send(b"b")
    new.send(b"c")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await established.receive(1)
    assert echo.received == b"a"
    await proxy.switch(Mode.PASS)

    assert await established.receive(2) == b"bb"
    assert await new.receive(2) == b"cc"


async def test_close_during_blackhole_is_forwarded_later(proxy: Proxy, echo: Echo) -> None:
    """A real network does the same, because TCP also retransmits packets sent before a close."""
    await proxy.switch(Mode.BLACKHOLE)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"new")
    writer.close()
    await writer.wait_closed()

    await proxy.switch(Mode.PASS)

    async with asyncio.timeout(TIMEOUT_SECONDS):
        await echo.has_received.wait()
    assert echo.received == b"new"
    assert reader.at_eof()


async def test_reset_ends_open_and_new_connections(
    proxy: Proxy, echo: Echo, connect: Connect
) -> None:
    established = await connect(proxy)
    established.send(b"a")
    await established.receive(2)

    await proxy.switch(Mode.RESET)

    with pytest.raises(ConnectionResetError):
        await established.receive(1)
    with pytest.raises(ConnectionResetError):
        await (await connect(proxy)).receive(1)
    assert echo.received == b"a"


async def test_response_is_lost_after_request_is_delivered(
    proxy: Proxy, echo: Echo, connect: Connect
) -> None:
    await proxy.switch(Mode.LOSE_ANSWERS)
    client = await connect(proxy)

    client.send(b"a")

    with pytest.raises(ConnectionResetError):
        await client.receive(1)
    assert echo.received == b"a"


async def test_cut_proxy_refuses_connections_until_restored(proxy: Proxy, connect: Connect) -> None:
    port, established = proxy.port, await connect(proxy)
    established.send(b"a")
    await established.receive(2)

    await proxy.switch(Mode.CUT)
    with pytest.raises(ConnectionResetError):
        await established.receive(1)
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)
    await proxy.switch(Mode.PASS)

    client = await connect(proxy)
    client.send(b"b")
    assert await client.receive(2) == b"bb"
    assert proxy.port == port


async def test_missing_target_is_a_reset(proxy: Proxy, connect: Connect) -> None:
    async with Proxy(proxy.port) as proxy_of_proxy:
        await proxy.switch(Mode.CUT)

        with pytest.raises(ConnectionResetError):
            await (await connect(proxy_of_proxy)).receive(1)
