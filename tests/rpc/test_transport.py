"""The transport of calls to other processes, against a server on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from markethall.shared.rpc.client import HttpClients, RetryPolicy

RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Recorder(asyncio.Protocol):
    """Responds to each received piece, and records the pieces of each connection."""

    def __init__(self, connections: list[list[bytes]]) -> None:
        self._pieces: list[bytes] = []
        connections.append(self._pieces)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        if data.endswith(b"{}"):
            self._transport.write(RESPONSE)


@asynccontextmanager
async def recording_server(
    connections: list[list[bytes]],
) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client of a server that records what it receives."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Recorder(connections), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    clients = HttpClients({"probe": f"http://{host}:{port}"}, RetryPolicy())
    try:
        yield clients.get("probe")
    finally:
        await clients.close()
        server.close()


async def test_requests_share_one_connection() -> None:
    connections: list[list[bytes]] = []

    async with recording_server(connections) as http:
        for _ in range(3):
            response = await http.post("/internal/probe/greet", content=b"{}")
            assert (response.status_code, response.content) == (200, b"{}")

    assert len(connections) == 1


async def test_only_the_given_headers_are_sent() -> None:
    connections: list[list[bytes]] = []

    async with recording_server(connections) as http:
        url = http.build_request("POST", "/internal/probe/greet").url
        await http.send(httpx2.Request("POST", url, headers={"x-one": "1"}, content=b"{}"))

    [[piece]] = connections
    names = {line.partition(b":")[0].lower() for line in piece.splitlines()[1:-2]}
    assert names == {b"host", b"content-length", b"x-one"}
