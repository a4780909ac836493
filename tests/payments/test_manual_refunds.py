"""Refunds of payments that arrived outside of the shop wait until staff have transferred them."""

from asyncio import gather

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    RefundExceedsCaptured,
    RefundStatus,
)
from markethall.payments.contract.api import PaymentView, RefundQuery
from markethall.payments.contract.errors import RefundNotFound, UnsupportedByProvider
from markethall.payments.contract.internal import RefundView
from markethall.shared.kernel.ids import new_id
from tests.payments.conftest import STAFF, PaymentsApp, attempt_without_key
from tests.payments.manual_refunds import DUE, pay_due_refunds
from tests.payments.test_mark_paid import amounts, awaited
from tests.payments.test_router import Client, assert_problem, client

__all__ = ["client"]


async def transferred(payments_app: PaymentsApp) -> PaymentView:
    """Return a payment of 10.00 EUR that arrived by bank transfer."""
    return await payments_app.mark_paid(await awaited(payments_app), 1000)


async def due(payments_app: PaymentsApp, query: RefundQuery = DUE) -> list[RefundView]:
    return list((await payments_app.container.manual_refunds().list_refunds(STAFF, query)).items)


async def test_refund_waits_until_staff_have_transferred_it(payments_app: PaymentsApp) -> None:
    payment = await transferred(payments_app)

    refund = await payments_app.refund(payment, 400)
    again = await payments_app.refund(payment, 400, refund.refund_id)
    for _ in range(3):
        payments_app.clock.advance(3600)
        await payments_app.run_periodic_jobs()
        await payments_app.reconcile()
    waiting, postings = await payments_app.current(payment), await payments_app.posting_count()
    assert await due(payments_app) == [refund] == [again]
    (paid,) = await pay_due_refunds(payments_app.container)

    assert (refund.status, paid.status) == (RefundStatus.PENDING, RefundStatus.SUCCEEDED)
    assert (paid.provider, paid.provider_reference) == ("manual", "bank 18")
    assert (amounts(waiting), postings) == ((1000, 1000, 0), 1)
    assert amounts(await payments_app.current(payment)) == (1000, 1000, 400)
    assert await payments_app.posting_count() == 2
    assert (await payments_app.event_types())[-1] == "payment_refunded"
    assert await due(payments_app) == []


async def test_waiting_refund_reserves_its_amount(payments_app: PaymentsApp) -> None:
    payment = await transferred(payments_app)
    await payments_app.refund(payment, 700)

    with pytest.raises(RefundExceedsCaptured):
        await payments_app.refund(payment, 301)


async def test_refund_is_marked_as_paid_once(payments_app: PaymentsApp) -> None:
    payment = await transferred(payments_app)
    refund = await payments_app.refund(payment, 400)

    results = await gather(
        *(pay_due_refunds(payments_app.container) for _ in range(10)), return_exceptions=True
    )

    paid = [result for result in results if isinstance(result, list) and result]
    refused = [result for result in results if isinstance(result, BaseException)]
    assert [one.refund_id for (one,) in paid] == [refund.refund_id]
    assert all(isinstance(error, InvalidPaymentTransition) for error in refused)
    assert amounts(await payments_app.current(payment)) == (1000, 1000, 400)
    assert await payments_app.posting_count() == 2


async def test_only_refunds_by_hand_can_be_marked_as_paid(payments_app: PaymentsApp) -> None:
    refunds = payments_app.container.manual_refunds()
    by_card = await payments_app.refund(await payments_app.paid(), 400)
    payment = await transferred(payments_app)
    by_hand = await payments_app.refund(payment, 400)

    for refund, payment_id, error in (
        (by_card.refund_id, by_card.payment_id, UnsupportedByProvider),
        (by_hand.refund_id, by_card.payment_id, RefundNotFound),
        (new_id(), payment.payment_id, RefundNotFound),
        (payment.payment_id, payment.payment_id, RefundNotFound),
    ):
        with pytest.raises(error):
            await refunds.mark_refund_paid(STAFF, payment_id, refund, "bank", attempt_without_key())


async def test_refunds_are_listed_in_pages_by_status_and_provider(
    payments_app: PaymentsApp,
) -> None:
    by_card = await payments_app.refund(await payments_app.paid(), 1)
    payment = await transferred(payments_app)
    by_hand = [await payments_app.refund(payment, amount) for amount in (2, 3, 4)]
    service = payments_app.container.manual_refunds()

    first = await service.list_refunds(STAFF, RefundQuery(provider="manual", limit=2))
    second = await service.list_refunds(
        STAFF, RefundQuery(provider="manual", limit=2, cursor=first.next_cursor)
    )

    assert [*first.items, *second.items] == by_hand
    assert second.next_cursor is None
    assert await due(payments_app, RefundQuery()) == [by_card, *by_hand]
    assert await due(payments_app, RefundQuery(status=RefundStatus.SUCCEEDED)) == [by_card]


async def test_staff_mark_refunds_as_paid_over_http(client: Client) -> None:
    payments_app = client.payments_app
    payment = await transferred(payments_app)
    refund = await payments_app.refund(payment, 400)
    path = f"/payments/{payment.payment_id}/refunds/{refund.refund_id}/mark-paid"
    body, staff = {"reference": "bank 18"}, "staff:payments"

    by_customer = await client.post(path, body, payment.user_id, idempotency_key="1")
    keyless = await client.post(path, body, role=staff)
    for _ in range(2):
        response = await client.post(path, body, role=staff, idempotency_key="2")
    again = await client.post(path, body, role=staff, idempotency_key="3")

    assert by_customer.status_code == 403
    assert_problem(keyless, 400, "idempotency.key_missing")
    assert (response.status_code, response.json()["status"]) == (200, "succeeded")
    assert response.headers["idempotency-replayed"] == "true"
    assert_problem(again, 409, "payments.invalid_transition")
    assert again.json()["details"] == {"status": "succeeded", "allowed": []}
