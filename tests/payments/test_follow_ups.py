"""Follow-ups of charges that wait for the customer: without a webhook, each charge still ends."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from markethall.payments.contract import PaymentStatus
from markethall.payments.contract.api import PaymentView
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import ORDERS_CONTEXT, attempt_without_key
from tests.payments.stripe_app import NEEDS_ACTION, OK, StripeApp, stripe_app
from tests.payments.stripe_server import StripeServer


@pytest.fixture
async def shop(storage: tuple[str, Postgres | None]) -> AsyncIterator[StripeApp]:
    async with StripeServer() as server, stripe_app(*storage, server) as shop:
        yield shop


async def waiting(shop: StripeApp, method: str = NEEDS_ACTION) -> tuple[PaymentView, Any]:
    """Return a payment that waits for the customer, and its intent at Stripe."""
    payment, attempt = await shop.open(), attempt_without_key()
    payment = await shop.confirm(payment, method, attempt)
    assert payment.status is PaymentStatus.REQUIRES_ACTION
    return payment, shop.stripe.intent_of(attempt.id)


async def pass_time(shop: StripeApp, **duration: float) -> None:
    shop.clock.advance(timedelta(**duration).total_seconds())
    await shop.run_periodic_jobs()


async def test_payment_is_captured_although_the_webhook_is_lost(shop: StripeApp) -> None:
    payment, intent = await waiting(shop)
    shop.stripe.finish_action(intent)

    await pass_time(shop, minutes=1, seconds=1)

    assert (await shop.current(payment)).status is PaymentStatus.CAPTURED
    assert await shop.event_types() == ["payment_status_changed", "payment_captured"]
    await shop.assert_agrees(payment)


async def test_failure_is_found_although_the_webhook_is_lost(shop: StripeApp) -> None:
    payment, intent = await waiting(shop)
    shop.stripe.finish_action(intent, decline="payment_intent_authentication_failure")

    await pass_time(shop, minutes=1, seconds=1)

    failed = await shop.current(payment)
    assert failed.status is PaymentStatus.FAILED
    assert failed.failure_code == "payment_intent_authentication_failure"


async def test_action_finished_just_before_the_expiry_captures(shop: StripeApp) -> None:
    payment, intent = await waiting(shop)
    await pass_time(shop, minutes=14, seconds=59)
    shop.stripe.finish_action(intent)

    await pass_time(shop, seconds=2)

    assert (await shop.current(payment)).status is PaymentStatus.CAPTURED
    await shop.assert_agrees(payment)


@pytest.mark.parametrize("method", [NEEDS_ACTION, "stripe"])
async def test_expired_payment_cannot_be_paid_at_stripe(shop: StripeApp, method: str) -> None:
    payment, intent = await waiting(shop, method)

    await pass_time(shop, minutes=16)

    assert (await shop.current(payment)).status is PaymentStatus.EXPIRED
    assert intent["status"] == "canceled"
    requests = shop.stripe.requests.total()
    await pass_time(shop, hours=1)
    assert shop.stripe.requests.total() == requests, "the follow-up has not ended"


async def test_declined_payment_on_the_page_cannot_be_paid_after_its_expiry(
    shop: StripeApp,
) -> None:
    """After a decline the customer may try another card, so the intent is still open."""
    payment, intent = await waiting(shop, "stripe")
    shop.stripe.finish_action(intent, decline="card_declined")
    await shop.deliver(shop.stripe.events[-1])

    await pass_time(shop, minutes=16)

    assert (await shop.current(payment)).status is PaymentStatus.EXPIRED
    assert intent["status"] == "canceled"


async def test_cancelled_payment_cannot_be_paid_at_stripe(shop: StripeApp) -> None:
    payment, intent = await waiting(shop)
    await shop.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    await pass_time(shop, minutes=1, seconds=1)

    assert intent["status"] == "canceled"
    assert (await shop.current(payment)).status is PaymentStatus.CANCELLED


async def test_payment_waits_for_stripe_before_it_expires(shop: StripeApp) -> None:
    payment, intent = await waiting(shop)
    shop.stripe.finish_action(intent)
    shop.stripe.is_down = True

    await pass_time(shop, minutes=16)
    during_the_outage = await shop.current(payment)
    shop.stripe.is_down = False
    await pass_time(shop, minutes=1)

    assert during_the_outage.status is PaymentStatus.REQUIRES_ACTION
    assert (await shop.current(payment)).status is PaymentStatus.CAPTURED
    await shop.assert_agrees(payment)


@pytest.mark.parametrize("is_paid", [True, False])
async def test_payment_expires_in_a_long_outage(shop: StripeApp, is_paid: bool) -> None:
    """Money that is found later is captured; orders then reinstates the order or refunds it."""
    payment, intent = await waiting(shop)
    if is_paid:
        shop.stripe.finish_action(intent)
    shop.stripe.is_down = True

    await pass_time(shop, hours=1)
    during_the_outage = await shop.current(payment)
    shop.stripe.is_down = False
    await pass_time(shop, minutes=1)

    assert during_the_outage.status is PaymentStatus.EXPIRED
    now = await shop.current(payment)
    assert now.status is (PaymentStatus.CAPTURED if is_paid else PaymentStatus.EXPIRED)
    assert intent["status"] == ("succeeded" if is_paid else "canceled")
    await shop.assert_agrees(payment)


async def test_earlier_charge_is_cancelled_when_a_later_one_has_paid(shop: StripeApp) -> None:
    payment, intent = await waiting(shop)
    await shop.confirm(payment, OK)

    await pass_time(shop, minutes=1, seconds=1)

    assert intent["status"] == "canceled"
    await shop.assert_agrees(payment)


async def test_second_payment_is_refunded_once_although_its_webhook_is_lost(
    shop: StripeApp,
) -> None:
    payment, intent = await waiting(shop)
    await shop.confirm(payment, OK)
    shop.stripe.finish_action(intent)

    for _ in range(3):
        await pass_time(shop, minutes=1, seconds=1)

    (refund,) = shop.stripe.refunds.values()
    assert (refund["payment_intent"], refund["amount"]) == (intent["id"], 1999)
    assert (await shop.current(payment)).refunded.amount == 0


async def lookups_in(shop: StripeApp, minutes: int) -> int:
    """Return how often the intent is read while this time passes in steps of 30 seconds."""
    before = shop.stripe.requests["get"]
    for _ in range(2 * minutes):
        await pass_time(shop, seconds=30)
    return shop.stripe.requests["get"] - before


async def test_charge_that_stripe_processes_is_looked_up_with_a_growing_delay(
    shop: StripeApp,
) -> None:
    payment, intent = await waiting(shop)
    intent["status"] = "processing"

    first, later = await lookups_in(shop, 12), await lookups_in(shop, 60)

    assert 3 <= first <= 6
    # each follow-up of an expired payment reads the intent twice
    assert later <= 2 * 7, "an expired payment is looked up more than every ten minutes"
    intent |= {"status": "requires_action"}
    shop.stripe.finish_action(intent)
    await pass_time(shop, minutes=10, seconds=1)
    assert (await shop.current(payment)).status is PaymentStatus.CAPTURED
