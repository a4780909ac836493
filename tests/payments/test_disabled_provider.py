"""Refunds wait while their provider is disabled, and continue when it is enabled again."""

from collections.abc import Callable
from typing import Any

import pytest
from dependency_injector import providers
from structlog.testing import capture_logs

from markethall.payments.container import PaymentsContainer
from markethall.payments.contract import RefundStatus
from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.internal import RefundView
from tests.payments.conftest import ORDERS_CONTEXT, PaymentsApp
from tests.payments.manual_refunds import pay_due_refunds
from tests.payments.test_manual_refunds import due, transferred
from tests.payments.test_mark_paid import amounts, awaited

Without = Callable[[str], PaymentsApp]


@pytest.fixture
def without(payments_app: PaymentsApp) -> Without:
    """Return a function that builds the same shop without one of its providers."""

    def build(provider: str) -> PaymentsApp:
        shop = payments_app.container
        left = [one for one in shop.gateways() if one.provider != provider]
        container = PaymentsContainer(settings=shop.settings(), tools=shop.tools())
        container.database.override(shop.database)
        container.persistence.override(shop.persistence)
        container.gateways.override(providers.Object(left))
        return PaymentsApp(container, payments_app.clock, payments_app.gateway)

    return build


def due_lines(logs: list[Any]) -> list[str]:
    return [line["refund_id"] for line in logs if line["event"] == "payment.manual_refund_due"]


async def is_for_staff(payments_app: PaymentsApp, refund: RefundView) -> bool:
    async with payments_app.container.database().read_session() as store:
        operation = await store.get_operation(refund.refund_id)
    assert operation is not None
    return operation.is_settled_by_hand


async def refund_while_disabled(
    payments_app: PaymentsApp, shop: PaymentsApp
) -> tuple[PaymentView, RefundView]:
    """Refund a transfer in a shop without `manual`, and run its jobs."""
    payment = await transferred(payments_app)
    refund = await shop.refund(payment, 400)
    for _ in range(3):
        await shop.reconcile()
    return payment, refund


async def test_refund_of_disabled_manual_waits_for_staff(
    payments_app: PaymentsApp, without: Without
) -> None:
    shop = without("manual")

    payment, refund = await refund_while_disabled(payments_app, shop)
    again = await shop.refund(payment, 400, refund.refund_id)

    assert refund.status is RefundStatus.PENDING
    assert await due(shop) == [refund] == [again]


async def test_enabled_manual_lists_the_refund_and_logs_it_once(
    payments_app: PaymentsApp, without: Without
) -> None:
    payment, refund = await refund_while_disabled(payments_app, without("manual"))

    with capture_logs() as logs:
        for _ in range(3):
            await payments_app.reconcile()

    assert due_lines(logs) == [str(refund.refund_id)]
    assert await is_for_staff(payments_app, refund)
    assert await due(payments_app) == [refund]
    await pay_due_refunds(payments_app.container)
    assert amounts(await payments_app.current(payment)) == (1000, 1000, 400)


async def test_retry_with_enabled_manual_hands_the_refund_to_staff(
    payments_app: PaymentsApp, without: Without
) -> None:
    payment, refund = await refund_while_disabled(payments_app, without("manual"))

    with capture_logs() as logs:
        for _ in range(2):
            again = await payments_app.refund(payment, 400, refund.refund_id)
        await payments_app.reconcile()

    assert again == refund
    assert due_lines(logs) == [str(refund.refund_id)]
    assert await is_for_staff(payments_app, refund)


async def test_money_of_an_ended_payment_waits_while_manual_is_disabled(
    payments_app: PaymentsApp, without: Without
) -> None:
    payment, shop = await awaited(payments_app), without("manual")
    await payments_app.mark_paid(payment, 300)
    await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    for _ in range(2):
        await shop.reconcile()
    (waiting,) = await due(shop)
    with capture_logs() as logs:
        await payments_app.reconcile()

    assert (waiting.status, waiting.amount.amount) == (RefundStatus.PENDING, 300)
    assert due_lines(logs) == [str(waiting.refund_id)]
    assert await due(payments_app) == [waiting]


async def test_refund_of_a_disabled_card_provider_is_sent_when_it_is_enabled(
    payments_app: PaymentsApp, without: Without
) -> None:
    payment, shop = await payments_app.paid(1000), without("sandbox")

    refund = await shop.refund(payment, 400)
    await shop.reconcile()
    again = await shop.refund(payment, 400, refund.refund_id)
    with capture_logs() as logs:
        await payments_app.reconcile()

    assert refund.status is again.status is RefundStatus.PENDING
    assert due_lines(logs) == []
    assert amounts(await payments_app.current(payment)) == (1000, 1000, 400)
    assert await payments_app.taken(payment) == (1000, 400)
