"""Counts the round trips to Postgres of one confirm, on the wire.

A client waits for Postgres after each Sync and each simple Query (message formats:
https://www.postgresql.org/docs/current/protocol-message-formats.html). A proxy counts these two
messages. No other work runs meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from markethall.app import create_app
from markethall.payments.container import PaymentsContainer
from markethall.payments.contract import ActivatePayments, OpenPayment
from markethall.settings import read_settings
from markethall.shared.http.idempotent_routes import IDEMPOTENCY_RETENTION_EXTENDED, ok_response
from markethall.shared.idempotency.records import IdempotentRequest
from markethall.shared.kernel.call_context import Actor, CallContext, system_context
from markethall.shared.kernel.money import Money

CONFIRMS: Final = 50
_CHUNK: Final = 65536
_SSL_REQUEST: Final = (80877103).to_bytes(4)
_GSSENC_REQUEST: Final = (80877104).to_bytes(4)
_AWAITED: Final = (b"S", b"Q")


class CountingProxy:
    """Forwards connections to Postgres. `round_trips` counts the messages that await an answer."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._tasks: set[asyncio.Task[None]] = set()
        self.round_trips = 0
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        database_reader, database_writer = await asyncio.open_connection(*self._target)
        for forward in (
            self._forward_messages(reader, database_writer),
            _forward(database_reader, writer),
        ):
            task = asyncio.create_task(forward)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward_messages(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward the messages of the client one by one, and count them."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await _forward_start(reader, writer)
            while True:
                kind = await reader.readexactly(1)
                self.round_trips += kind in _AWAITED
                length = await reader.readexactly(4)
                writer.write(kind + length + await _read_rest(reader, length))
        writer.close()


async def _forward_start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward the messages without a type: requests for encryption, then the startup message."""
    body = _SSL_REQUEST
    while body in {_SSL_REQUEST, _GSSENC_REQUEST}:
        length = await reader.readexactly(4)
        body = await _read_rest(reader, length)
        writer.write(length + body)


async def _read_rest(reader: asyncio.StreamReader, length: bytes) -> bytes:
    """Read the rest of a message; its length includes the four bytes of the length itself."""
    return await reader.readexactly(int.from_bytes(length) - 4)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
    writer.close()


async def count_round_trips(database_url: str) -> float:
    """Return the round trips of one confirm with an idempotency key: the mean of CONFIRMS."""
    async with _container_behind_proxy(database_url) as (container, proxy):
        payments = [await _open_payment(container) for _ in range(CONFIRMS + 1)]
        # the first confirm also prepares the statements
        await _confirm(container, payments[0])
        before = proxy.round_trips
        for payment in payments[1:]:
            await _confirm(container, payment)
        return (proxy.round_trips - before) / CONFIRMS


@asynccontextmanager
async def _container_behind_proxy(
    database_url: str,
) -> AsyncIterator[tuple[PaymentsContainer, CountingProxy]]:
    parts = urlsplit(database_url)
    proxy = CountingProxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    await proxy.open()
    address = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
    url = urlunsplit(parts._replace(netloc=address))
    settings = read_settings(database_url=url, database_pool_min=1, database_pool_max=1)
    container = create_app(settings).container
    try:
        yield container.context("payments", PaymentsContainer), proxy
    finally:
        await container.close()
        await proxy.close()


async def _open_payment(container: PaymentsContainer) -> OpenPayment:
    orders = system_context("orders")
    command = OpenPayment(
        payment_id=uuid4(),
        order_id=uuid4(),
        user_id=uuid4(),
        amount=Money(amount=1999, currency="EUR"),
        expires_at=datetime.now(UTC) + timedelta(minutes=15),
    )
    await container.payments().open(orders, command)
    activation = ActivatePayments(payment_ids=(command.payment_id,))
    await container.payments().activate(orders, activation)
    return command


async def _confirm(container: PaymentsContainer, payment: OpenPayment) -> None:
    """Confirm the payment with an idempotency key, as the route does."""
    ctx = CallContext(actor=Actor(user_id=payment.user_id), request_id="bench")
    key, body = f"key {payment.payment_id}", {"payment_method": "sandbox_ok"}
    path = f"/payments/{payment.payment_id}/confirm"
    response, _ = await container.idempotency().run(
        IdempotentRequest(ctx.actor.audit_name, "POST", path, key, body),
        IDEMPOTENCY_RETENTION_EXTENDED,
        ok_response,
        lambda attempt: container.payment_api().confirm(
            ctx, payment.payment_id, "sandbox_ok", attempt
        ),
    )
    if '"captured"' not in response.body:
        raise RuntimeError("the payment is not captured")
