"""Counts the round trips to Postgres of one confirm, on the wire. No other work runs meanwhile."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from markethall.app import create_app
from markethall.payments.container import PaymentsContainer
from markethall.payments.contract import ActivatePayments, OpenPayment
from markethall.settings import read_settings
from markethall.shared.http.idempotent_routes import IDEMPOTENCY_RETENTION_EXTENDED, ok_response
from markethall.shared.idempotency.records import IdempotentRequest
from markethall.shared.kernel.call_context import Actor, CallContext, system_context
from markethall.shared.kernel.money import Money

from .wire import RecordingProxy, recording_proxy

CONFIRMS: Final = 50


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
) -> AsyncIterator[tuple[PaymentsContainer, RecordingProxy]]:
    async with recording_proxy(database_url) as (proxy, url):
        settings = read_settings(database_url=url, database_pool_min=1, database_pool_max=1)
        container = create_app(settings).container
        try:
            yield container.context("payments", PaymentsContainer), proxy
        finally:
            await container.close()


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
