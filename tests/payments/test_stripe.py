"""Payments through Stripe, over HTTP to a fake of its API."""

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest

from markethall.payments.contract import (
    PaymentStatus,
    RefundExceedsCaptured,
    RefundStatus,
    UnknownPaymentMethod,
)
from markethall.payments.contract.api import PaymentMethodQuery, ProviderSdkAction, RedirectAction
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import STAFF, attempt_without_key
from tests.payments.stripe_app import DECLINED, NEEDS_ACTION, OK, StripeApp, stripe_app
from tests.payments.stripe_server import Fault, StripeServer


@pytest.fixture
async def shop(storage: tuple[str, Postgres | None]) -> AsyncIterator[StripeApp]:
    async with StripeServer() as server, stripe_app(*storage, server) as shop:
        yield shop


async def test_charge_captures_payment(shop: StripeApp) -> None:
    payment = await shop.paid()

    assert (payment.status, payment.provider) == (PaymentStatus.CAPTURED, "stripe")
    assert payment.captured.amount == 1999
    await shop.assert_agrees(payment)
    assert await shop.event_types() == ["payment_captured"]


async def test_confirmation_token_pays(shop: StripeApp) -> None:
    payment = await shop.confirm(await shop.open(), "ctoken_1NnQUf2eZvKYlo2C")

    assert payment.status is PaymentStatus.CAPTURED


async def test_retry_charges_once(shop: StripeApp) -> None:
    payment, attempt = await shop.open(), attempt_without_key()

    first = await shop.confirm(payment, OK, attempt)
    second = await shop.confirm(payment, OK, attempt)

    assert first == second
    assert shop.stripe.requests["confirm"] == 1
    await shop.assert_agrees(payment)


async def test_declined_card_can_be_replaced(shop: StripeApp) -> None:
    declined = await shop.confirm(await shop.open(), "pm_card_chargeDeclinedInsufficientFunds")

    paid = await shop.confirm(declined, OK)

    assert (declined.status, declined.failure_code) == (PaymentStatus.FAILED, "insufficient_funds")
    assert paid.status is PaymentStatus.CAPTURED
    await shop.assert_agrees(paid)


@pytest.mark.parametrize("code", ["generic_decline", "resource_missing"])
async def test_rejection_is_final(shop: StripeApp, code: str) -> None:
    method = {"generic_decline": DECLINED, "resource_missing": "pm_missing"}[code]

    failed = await shop.confirm(await shop.open(), method)

    assert (failed.status, failed.failure_code) == (PaymentStatus.FAILED, code)
    await shop.assert_agrees(failed)


@pytest.mark.parametrize(
    "method",
    ["4242424242424242", "pm_", "pm_card visa", "pm_é", "tok_visa", "pi_1", "pm_" + "a" * 97],
)
async def test_only_tokens_of_stripe_are_accepted(shop: StripeApp, method: str) -> None:
    with pytest.raises(UnknownPaymentMethod):
        await shop.confirm(await shop.open(), method)

    assert not shop.stripe.requests


async def test_customer_authenticates_and_comes_back(shop: StripeApp) -> None:
    payment, attempt = await shop.open(), attempt_without_key()
    waiting = await shop.confirm(payment, NEEDS_ACTION, attempt)
    assert isinstance(waiting.next_action, RedirectAction)
    return_url = waiting.next_action.url.partition("?to=")[2]

    shop.stripe.finish_action(shop.stripe.intent_of(attempt.id))
    await shop.deliver(shop.stripe.events[-1])

    assert waiting.status is PaymentStatus.REQUIRES_ACTION
    assert parse_qs(urlsplit(return_url).query) == {
        "from": ["stripe"],
        "payment_id": [str(payment.payment_id)],
    }
    paid = await shop.current(payment)
    assert (paid.status, paid.next_action) == (PaymentStatus.CAPTURED, None)
    await shop.assert_agrees(payment)


async def test_failed_authentication_fails_payment(shop: StripeApp) -> None:
    payment, attempt = await shop.open(), attempt_without_key()
    await shop.confirm(payment, NEEDS_ACTION, attempt)

    intent = shop.stripe.intent_of(attempt.id)
    shop.stripe.finish_action(intent, decline="payment_intent_authentication_failure")
    await shop.deliver(shop.stripe.events[-1])

    failed = await shop.current(payment)
    assert failed.status is PaymentStatus.FAILED
    assert failed.failure_code == "payment_intent_authentication_failure"
    assert (await shop.confirm(failed, OK)).status is PaymentStatus.CAPTURED
    await shop.assert_agrees(payment)


async def test_page_of_the_shop_authenticates_without_return_url() -> None:
    async with (
        StripeServer() as server,
        stripe_app("memory", None, server, stripe_return_url="") as shop,
    ):
        attempt = attempt_without_key()
        waiting = await shop.confirm(await shop.open(), NEEDS_ACTION, attempt)

        assert isinstance(waiting.next_action, ProviderSdkAction)
        assert waiting.next_action.provider == "stripe"
        assert waiting.next_action.client_secret == server.intent_of(attempt.id)["client_secret"]


async def test_payment_is_made_on_the_page_of_the_shop(shop: StripeApp) -> None:
    """The page collects the payment method. After a decline, the PaymentIntent is still open."""
    payment, attempt = await shop.open(), attempt_without_key()
    waiting = await shop.confirm(payment, "stripe", attempt)
    intent = shop.stripe.intent_of(attempt.id)

    shop.stripe.finish_action(intent, decline="card_declined")
    await shop.deliver(shop.stripe.events[-1])
    declined = await shop.current(payment)
    shop.stripe.finish_action(intent)
    await shop.deliver(shop.stripe.events[-1])

    assert waiting.next_action == ProviderSdkAction(
        provider="stripe", client_secret=intent["client_secret"]
    )
    assert shop.stripe.requests["confirm"] == 0
    assert (declined.status, declined.failure_code) == (PaymentStatus.FAILED, "card_declined")
    assert (await shop.current(payment)).status is PaymentStatus.CAPTURED
    await shop.assert_agrees(payment)


async def test_lost_intent_of_the_page_is_found(shop: StripeApp) -> None:
    attempt = attempt_without_key()
    shop.stripe.fail("create", Fault.LOST_AFTER)

    unknown = await shop.confirm(await shop.open(), "stripe", attempt)
    settled = await shop.settle(unknown)

    assert unknown.status is PaymentStatus.UNKNOWN
    assert settled.status is PaymentStatus.REQUIRES_ACTION
    assert isinstance(settled.next_action, ProviderSdkAction)
    intent = shop.stripe.intent_of(attempt.id)
    assert settled.next_action.client_secret == intent["client_secret"]


async def test_offered_methods(shop: StripeApp) -> None:
    listed = shop.payment_api.list_payment_methods(PaymentMethodQuery(currency="EUR"))
    nothing = shop.payment_api.list_payment_methods(PaymentMethodQuery(currency="IQD"))

    assert [(one.method, one.provider, one.name) for one in listed.items] == [
        ("stripe", "stripe", "Card")
    ]
    assert not nothing.items


async def test_partial_refunds_up_to_the_amount(shop: StripeApp) -> None:
    payment = await shop.paid()

    refunds = [await shop.refund(payment, amount) for amount in (600, 600, 400, 399)]
    with pytest.raises(RefundExceedsCaptured):
        await shop.refund(payment, 1)

    assert {refund.status for refund in refunds} == {RefundStatus.SUCCEEDED}
    assert (await shop.current(payment)).refunded.amount == 1999
    await shop.assert_agrees(payment)


async def test_money_that_was_returned_by_hand_cannot_be_refunded(shop: StripeApp) -> None:
    payment = await shop.paid()
    (intent,) = shop.stripe.intents.values()
    shop.stripe._refund("", {"payment_intent": intent["id"], "amount": "1999", "metadata": {}})

    refund = await shop.refund(payment, 1)

    assert (refund.status, refund.failure_code) == (RefundStatus.FAILED, "charge_already_refunded")


@pytest.mark.parametrize(
    ("amount", "currency", "at_stripe"),
    [(500, "JPY", 500), (500, "ISK", 50_000), (1230, "KWD", 1230), (1200, "MGA", 12)],
)
async def test_amounts_are_in_minor_units_of_stripe(
    shop: StripeApp, amount: int, currency: str, at_stripe: int
) -> None:
    payment = await shop.confirm(await shop.open(amount, currency), OK)

    assert payment.captured.amount == amount
    (intent,) = shop.stripe.intents.values()
    assert (intent["amount"], intent["currency"]) == (at_stripe, currency.lower())


async def test_amount_that_stripe_cannot_take_fails(shop: StripeApp) -> None:
    payment = await shop.confirm(await shop.open(1234, "KWD"), OK)

    assert (payment.status, payment.failure_code) == (PaymentStatus.FAILED, "amount_not_supported")
    assert not shop.stripe.requests


async def test_ledger_names_stripe(shop: StripeApp) -> None:
    await shop.paid()

    balances = await shop.ledger.list_account_balances(STAFF)

    assert {one.account: one.balance.amount for one in balances} == {
        "customers:payments": -1999,
        "fees:stripe": 30,
        "provider:stripe": 1969,
    }


async def test_fee_is_posted_in_the_currency_of_the_balance(shop: StripeApp) -> None:
    shop.stripe.settlement_currency = "usd"

    await shop.paid()

    balances = await shop.ledger.list_account_balances(STAFF)
    assert {
        one.balance.currency: one.balance.amount
        for one in balances
        if one.account != "customers:payments"
    } == {"EUR": 1999, "USD": -30}
    assert (await shop.ledger.verify(STAFF)).intact


async def test_charge_that_is_booked_later_has_no_fee_yet(shop: StripeApp) -> None:
    shop.stripe.books_late = True

    payment = await shop.paid()

    balances = await shop.ledger.list_account_balances(STAFF)
    assert payment.status is PaymentStatus.CAPTURED
    assert [one.account for one in balances] == ["customers:payments", "provider:stripe"]
