"""HTTP on a bare socket: what a well-behaved client refuses to send, and what comes back."""

import asyncio
import json
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

LIMIT = 60
Header = tuple[bytes, bytes]


@dataclass(frozen=True)
class Reply:
    """Status 0: the connection was closed without an answer; -1: it was left to wait."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


CLOSED, HANGS = Reply(0, {}, b""), Reply(-1, {}, b"")


def request(
    method: bytes, target: bytes, headers: Iterable[Header] = (), body: bytes | None = None
) -> bytes:
    """The bytes of a request that asks for the connection to be closed after it."""
    names = {name.lower() for name, _ in headers}
    lines = [b"%s %s HTTP/1.1" % (method, target), b"Host: hall", b"Connection: close"]
    lines += [b"%s: %s" % header for header in headers]
    if body is not None and not names & {b"content-length", b"transfer-encoding"}:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body or b""])


async def exchange(port: int, data: bytes) -> Reply:
    """Sends and receives side by side: a server may answer before it has read everything."""
    loop = asyncio.get_running_loop()
    with socket.socket() as door:
        door.setblocking(False)
        await loop.sock_connect(door, ("127.0.0.1", port))
        sending = asyncio.create_task(_send(door, data))
        try:
            async with asyncio.timeout(LIMIT):
                return parsed(await _receive(door))
        except TimeoutError:
            return HANGS
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(door: socket.socket, data: bytes) -> None:
    # a refused request may be cut off while we are still talking
    with suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(door, data)


async def _receive(door: socket.socket) -> bytes:
    loop, received = asyncio.get_running_loop(), b""
    with suppress(ConnectionError):
        while part := await loop.sock_recv(door, 1 << 16):
            received += part
    return received


def parsed(received: bytes) -> Reply:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return CLOSED
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Reply(int(first.split(" ")[1]), headers, body)
