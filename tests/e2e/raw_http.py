"""HTTP over a raw socket, for requests that an HTTP client refuses to send."""

import asyncio
import json
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 60
Header = tuple[bytes, bytes]


@dataclass(frozen=True)
class Reply:
    """A response. Status 0 means a connection closed without a response, -1 a timeout."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


CLOSED, TIMED_OUT = Reply(0, {}, b""), Reply(-1, {}, b"")


def request(
    method: bytes, target: bytes, headers: Iterable[Header] = (), body: bytes | None = None
) -> bytes:
    """Return the bytes of a request with `Connection: close`."""
    names = {name.lower() for name, _ in headers}
    lines = [b"%s %s HTTP/1.1" % (method, target), b"Host: shop", b"Connection: close"]
    lines += [b"%s: %s" % header for header in headers]
    if body is not None and not names & {b"content-length", b"transfer-encoding"}:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body or b""])


async def exchange(port: int, data: bytes) -> Reply:
    """Send the request and return the response.

    Sending and receiving run concurrently, because a server may respond before it has read the
    whole request.
    """
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        sending = asyncio.create_task(_send(connection, data))
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return parse_reply(await _receive(connection))
        except TimeoutError:
            return TIMED_OUT
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(connection: socket.socket, data: bytes) -> None:
    # ignore connection errors, because the server may reject a request before it has read the end
    with suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(connection, data)


async def _receive(connection: socket.socket) -> bytes:
    """Receive until the server closes the connection, or the start of a stream of events."""
    loop, received = asyncio.get_running_loop(), b""
    with suppress(ConnectionError):
        while part := await loop.sock_recv(connection, 1 << 16):
            received += part
            head, is_complete, _ = received.partition(b"\r\n\r\n")
            if is_complete and b"text/event-stream" in head:
                break
    return received


def parse_reply(received: bytes) -> Reply:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return CLOSED
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Reply(int(first.split(" ")[1]), headers, body)
