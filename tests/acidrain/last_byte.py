"""Send requests so that they arrive together: first all but the last byte, then the last bytes."""

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RawRequest:
    """A request with a JSON body. It has its own idempotency key."""

    method: str
    path: str
    body: dict[str, Any]
    token: str = ""
    key: str = field(default_factory=lambda: secrets.token_hex(16))

    def encode(self) -> bytes:
        body = json.dumps(self.body).encode()
        head = (
            f"{self.method} {self.path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Idempotency-Key: {self.key}\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True)
class RawResponse:
    status: int
    body: dict[str, Any]


async def send_together(port: int, requests: Sequence[RawRequest]) -> list[RawResponse]:
    """Send the last bytes of all requests when everything before them is sent."""
    all_are_sent = asyncio.Barrier(len(requests))
    return await asyncio.gather(*(_send(port, request, all_are_sent) for request in requests))


async def _send(port: int, request: RawRequest, all_are_sent: asyncio.Barrier) -> RawResponse:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = request.encode()
    writer.write(data[:-1])
    await writer.drain()
    await all_are_sent.wait()
    writer.write(data[-1:])
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return RawResponse(int(head.split()[1]), json.loads(body or b"{}"))
