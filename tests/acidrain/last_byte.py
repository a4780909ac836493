"""Send requests so that they arrive together: first all but the last byte, then the last bytes."""

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

# the header that changes by staff require
ANY_VERSION: Final = ("If-Match: *",)


@dataclass(frozen=True)
class RawRequest:
    """A request with a JSON body, or without a body. It has its own idempotency key."""

    method: str
    path: str
    body: dict[str, Any] | None
    token: str = ""
    headers: Sequence[str] = ()
    key: str = field(default_factory=lambda: secrets.token_hex(16))

    def encode(self) -> bytes:
        body = b"" if self.body is None else json.dumps(self.body).encode()
        head = [
            f"{self.method} {self.path} HTTP/1.1",
            "Host: shop",
            "Connection: close",
            f"Idempotency-Key: {self.key}",
            f"Authorization: Bearer {self.token}",
            *self.headers,
            *(["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []),
        ]
        # without a body, the last byte of the request is in the head
        return "\r\n".join([*head, "", ""]).encode() + body


@dataclass(frozen=True)
class RawResponse:
    status: int
    body: dict[str, Any]

    @property
    def is_final(self) -> bool:
        """False if the server was too busy, or still processes a request with the same key."""
        return self.status != 503 and self.body.get("code") != "idempotency.in_flight"


def expect_statuses(answers: Sequence[RawResponse], *statuses: int) -> None:
    """Raise AssertionError if an answer has none of these statuses."""
    unexpected = [answer for answer in answers if answer.status not in statuses]
    assert unexpected == [], unexpected


async def send_together(port: int, requests: Sequence[RawRequest]) -> list[RawResponse]:
    """Send the last bytes of all requests when everything before them is sent."""
    all_are_sent = asyncio.Barrier(len(requests))
    return await asyncio.gather(*(_send(port, request, all_are_sent) for request in requests))


async def send_until_final(port: int, requests: Sequence[RawRequest]) -> list[RawResponse]:
    """Send the requests together, then repeat each one until its response is final."""
    answers = await send_together(port, requests)
    for index, request in enumerate(requests):
        while not answers[index].is_final:
            await asyncio.sleep(0.2)
            (answers[index],) = await send_together(port, [request])
    return answers


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
