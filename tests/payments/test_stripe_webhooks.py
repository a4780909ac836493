"""Webhooks of Stripe: forged, duplicate, early, out of order, and about unknown payments."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import permutations
from typing import Any

import httpx2
import pytest

from markethall.payments.contract import PaymentStatus, RefundStatus
from markethall.payments.contract.errors import WebhookSignatureInvalid
from markethall.payments.gateway.webhook_signatures import sign
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import BodyTooLarge, MalformedRequest, ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.observability.metrics import PROVIDER_WEBHOOKS
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.security.access_tokens import AccessTokenSigner, generate_private_key
from tests.payments.conftest import ANONYMOUS, attempt_without_key
from tests.payments.forged_signatures import RANDOM_FORGERIES, crafted_headers, random_headers
from tests.payments.stripe_app import (
    NEEDS_ACTION,
    OK,
    WEBHOOK_SECRET,
    StripeApp,
    signature,
    stripe_app,
)
from tests.payments.stripe_server import Fault, StripeServer
from tests.payments.test_router import AUDIENCE, ISSUER, Client, app_of

OLD_SECRET = "whsec_fedcba9876543210"
OTHER_SECRET = "whsec_9999999999999999"


@pytest.fixture
async def shop(storage: tuple[str, Postgres | None]) -> AsyncIterator[StripeApp]:
    secrets_of_rotation = f"{WEBHOOK_SECRET},{OLD_SECRET}"
    async with (
        StripeServer() as server,
        stripe_app(*storage, server, stripe_webhook_secrets=secrets_of_rotation) as shop,
    ):
        yield shop


async def receive(shop: StripeApp, header: str | None, body: bytes) -> None:
    headers = {} if header is None else {"stripe-signature": header}
    await shop.payment_api.receive_webhook(ANONYMOUS, "stripe", headers, body)


def now_of(shop: StripeApp) -> int:
    return int(shop.clock().timestamp())


async def test_both_secrets_of_a_rotation_are_accepted(shop: StripeApp) -> None:
    event = shop.stripe.build_event("balance.available", {})

    first = await shop.deliver(event, WEBHOOK_SECRET)
    second = await shop.deliver(event, OLD_SECRET)

    assert (first.duplicate, second.duplicate) == (False, True)
    with pytest.raises(WebhookSignatureInvalid):
        await shop.deliver(event, OTHER_SECRET)


async def test_one_of_several_signatures_is_enough(shop: StripeApp) -> None:
    body, now = json.dumps(shop.stripe.build_event("balance.available", {})).encode(), now_of(shop)

    others = [sign(OTHER_SECRET.encode(), now, body), sign(WEBHOOK_SECRET.encode(), now, body)]

    await receive(shop, f"t={now},v1={others[0]},v1={others[1]},v0={others[0]}", body)


@pytest.mark.parametrize(
    ("age", "is_accepted"), [(299, True), (302, False), (-298, True), (-302, False)]
)
async def test_signature_is_valid_for_five_minutes(
    shop: StripeApp, age: int, is_accepted: bool
) -> None:
    body = json.dumps(shop.stripe.build_event("balance.available", {})).encode()
    header = signature(body, now_of(shop) - age)

    if is_accepted:
        await receive(shop, header, body)
    else:
        with pytest.raises(WebhookSignatureInvalid):
            await receive(shop, header, body)


async def test_crafted_signature_is_refused(shop: StripeApp) -> None:
    payment, attempt = await shop.open(), attempt_without_key()
    waiting = await shop.confirm(payment, NEEDS_ACTION, attempt)
    body = json.dumps(
        shop.stripe.build_event("payment_intent.succeeded", shop.stripe.intent_of(attempt.id))
    ).encode()
    requests = shop.stripe.requests.total()

    for name, header in crafted_headers(WEBHOOK_SECRET.encode(), body, now_of(shop)).items():
        with pytest.raises(WebhookSignatureInvalid):
            await receive(shop, header, body)
        assert await shop.current(payment) == waiting, name

    assert shop.stripe.requests.total() == requests


@pytest.mark.parametrize("storage", ["memory"], indirect=True)
async def test_random_signature_is_refused(shop: StripeApp) -> None:
    body, now = json.dumps(shop.stripe.build_event("balance.available", {})).encode(), now_of(shop)

    accepted = 0
    for header in random_headers(WEBHOOK_SECRET.encode(), body, now, RANDOM_FORGERIES):
        try:
            await receive(shop, header, body)
        except WebhookSignatureInvalid:
            continue
        accepted += 1

    assert accepted == 0


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", MalformedRequest),
        (b"{", MalformedRequest),
        (b"\xff", MalformedRequest),
        (b"[" * 5000, MalformedRequest),
        (b"[]", ValidationFailed),
        (b'{"id": "evt_1", "type": "a.b"}', ValidationFailed),
        (b'{"id": "", "type": "a.b", "data": {"object": {}}}', ValidationFailed),
        (b'{"id": "evt_1", "type": "refund.created", "data": {"object": {}}}', ValidationFailed),
        (b"a" * (64 * 1024 + 1), BodyTooLarge),
    ],
)
async def test_signed_garbage_is_refused(
    shop: StripeApp, body: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await receive(shop, signature(body, now_of(shop)), body)


async def test_amount_that_is_none_is_refused(shop: StripeApp) -> None:
    await shop.paid()
    (intent,) = shop.stripe.intents.values()
    event = shop.stripe.build_event(
        "payment_intent.succeeded", intent | {"amount": 550, "currency": "isk"}
    )

    with pytest.raises(ValidationFailed):
        await shop.deliver(event)


async def test_same_event_a_hundred_times_has_one_effect(shop: StripeApp) -> None:
    payment, attempt = await shop.open(), attempt_without_key()
    await shop.confirm(payment, NEEDS_ACTION, attempt)
    shop.stripe.finish_action(shop.stripe.intent_of(attempt.id))

    receipts = [await shop.deliver(shop.stripe.events[-1]) for _ in range(100)]

    assert [receipt.duplicate for receipt in receipts] == [False, *[True] * 99]
    assert (await shop.current(payment)).status is PaymentStatus.CAPTURED
    assert await shop.posting_count() == 1
    await shop.assert_agrees(payment)


async def test_webhook_before_the_answer_captures_once(shop: StripeApp) -> None:
    payment = await shop.open()
    shop.gateway.before_response = lambda: shop.deliver(shop.stripe.events[-1])

    paid = await shop.confirm(payment, OK)

    assert paid.status is PaymentStatus.CAPTURED
    assert await shop.event_types() == ["payment_captured"]
    await shop.assert_agrees(payment)


@pytest.mark.parametrize("fault", [Fault.LOST_AFTER, Fault.SERVER_ERROR_AFTER])
async def test_webhook_settles_before_the_reconciler(shop: StripeApp, fault: Fault) -> None:
    shop.stripe.fail("confirm", fault)
    unknown = await shop.confirm(await shop.open(), OK)

    await shop.deliver(shop.stripe.events[-1])

    assert unknown.status is PaymentStatus.UNKNOWN
    assert (await shop.current(unknown)).status is PaymentStatus.CAPTURED
    await shop.assert_agrees(unknown)


async def test_event_waits_while_stripe_does_not_answer(shop: StripeApp) -> None:
    payment, attempt = await shop.open(), attempt_without_key()
    await shop.confirm(payment, NEEDS_ACTION, attempt)
    shop.stripe.finish_action(shop.stripe.intent_of(attempt.id))
    shop.stripe.fail("get", Fault.RATE_LIMITED)

    receipt = await shop.deliver(shop.stripe.events[-1])
    meanwhile = await shop.current(payment)
    await shop.run_periodic_jobs()

    assert not receipt.duplicate
    assert meanwhile.status is PaymentStatus.REQUIRES_ACTION
    assert (await shop.current(payment)).status is PaymentStatus.CAPTURED


async def test_event_of_a_payment_in_processing_does_not_hold_up_others(shop: StripeApp) -> None:
    payments = [await shop.open() for _ in range(2)]
    attempts = [attempt_without_key() for _ in payments]
    for payment, attempt in zip(payments, attempts, strict=True):
        await shop.confirm(payment, NEEDS_ACTION, attempt)
        shop.stripe.finish_action(intent := shop.stripe.intent_of(attempt.id))
        shop.stripe.fail("get", Fault.RATE_LIMITED)
        await shop.deliver(shop.stripe.build_event("payment_intent.succeeded", intent))
    shop.stripe.intent_of(attempts[0].id)["status"] = "processing"

    await shop.run_periodic_jobs()

    statuses = [(await shop.current(payment)).status for payment in payments]
    assert statuses == [PaymentStatus.REQUIRES_ACTION, PaymentStatus.CAPTURED]


async def test_event_of_an_operation_that_is_not_stored_yet_is_kept(shop: StripeApp) -> None:
    server, operation_id = shop.stripe, new_id()
    intent = server._create("", {
        "amount": "1999", "currency": "eur", "capture_method": "automatic",
        "payment_method_types": {}, "metadata": {"markethall_operation_id": str(operation_id)},
    })  # fmt: skip

    receipt = await shop.deliver(server.build_event("payment_intent.succeeded", intent))
    await shop.run_periodic_jobs()

    assert not receipt.duplicate
    async with shop.container.database().read_session() as store:
        assert await store.get_operation(operation_id) is None


@pytest.mark.parametrize(
    ("type_", "metadata"),
    [
        ("charge.dispute.created", {}),
        ("payment_intent.created", {"markethall_operation_id": "not an id"}),
        ("payment_intent.succeeded", {"markethall_operation_id": "not an id"}),
        ("payment_intent.succeeded", {}),
        ("payment_intent.succeeded", {"order": "17"}),
    ],
)
async def test_event_about_something_else_is_stored(
    shop: StripeApp, type_: str, metadata: dict[str, str]
) -> None:
    """An event without a valid operation id is no error.

    It may be about a payment of another program that uses the same Stripe account.
    """
    await shop.paid()
    (intent,) = shop.stripe.intents.values()
    requests = shop.stripe.requests.total()

    receipt = await shop.deliver(shop.stripe.build_event(type_, intent | {"metadata": metadata}))

    assert not receipt.duplicate
    assert shop.stripe.requests.total() == requests


@pytest.mark.parametrize(
    "change", [{"amount": 1}, {"currency": "usd"}, {"capture_method": "manual"}]
)
async def test_event_that_does_not_fit_changes_nothing(
    shop: StripeApp, change: dict[str, Any]
) -> None:
    payment, attempt = await shop.open(), attempt_without_key()
    waiting = await shop.confirm(payment, NEEDS_ACTION, attempt)
    dead = PROVIDER_WEBHOOKS.labels("stripe", "dead")._value.get()

    intent = shop.stripe.intent_of(attempt.id) | change
    await shop.deliver(shop.stripe.build_event("payment_intent.payment_failed", intent))

    assert await shop.current(payment) == waiting
    assert PROVIDER_WEBHOOKS.labels("stripe", "dead")._value.get() == dead + 1


async def test_second_payment_by_an_abandoned_card_is_refunded(shop: StripeApp) -> None:
    """The customer pays with another card, then finishes the authentication of the first card."""
    payment, attempt = await shop.open(), attempt_without_key()
    await shop.confirm(payment, NEEDS_ACTION, attempt)
    await shop.confirm(payment, OK)

    intent = shop.stripe.intent_of(attempt.id)
    shop.stripe.finish_action(intent)
    for _ in range(2):
        await shop.deliver(shop.stripe.build_event("payment_intent.succeeded", intent))

    charges, captured, refunded = shop.stripe.totals(payment.payment_id)
    assert (charges, captured, refunded) == (2, 3998, 1999)
    assert (await shop.current(payment)).captured.amount == 1999
    assert await shop.posting_count() == 1


async def test_refund_event_settles_a_lost_refund(shop: StripeApp) -> None:
    payment = await shop.paid()
    shop.stripe.fail("refund", Fault.LOST_AFTER)
    refund = await shop.refund(payment, 600)

    await shop.deliver(shop.stripe.events[-1])

    assert refund.status is RefundStatus.UNKNOWN
    assert (await shop.current(payment)).refunded.amount == 600
    await shop.assert_agrees(payment)


async def test_refund_that_the_bank_returns_is_for_staff(shop: StripeApp) -> None:
    payment = await shop.paid()
    await shop.refund(payment, 600)
    (refund,) = shop.stripe.refunds.values()
    dead = PROVIDER_WEBHOOKS.labels("stripe", "dead")._value.get()

    refund |= {"status": "failed", "failure_reason": "lost_or_stolen_card"}
    await shop.deliver(shop.stripe.build_event("refund.failed", refund))

    assert (await shop.current(payment)).refunded.amount == 600
    assert PROVIDER_WEBHOOKS.labels("stripe", "dead")._value.get() == dead + 1


async def test_all_orders_of_five_events_give_one_state(shop: StripeApp) -> None:
    """Each of 120 payments gets the same five events twice, in a different order."""
    states = set()
    for order in permutations(range(5)):
        payment, attempt = await shop.open(), attempt_without_key()
        await shop.confirm(payment, NEEDS_ACTION, attempt)
        intent = shop.stripe.intent_of(attempt.id)
        shop.stripe.finish_action(intent, decline="payment_intent_authentication_failure")
        shop.stripe.require_action(intent)
        shop.stripe.finish_action(intent, decline="card_declined")
        shop.stripe.finish_action(intent)
        events = shop.stripe.events[-5:]

        for number in order * 2:
            await shop.deliver(events[number])

        after = await shop.current(payment)
        states.add((after.status, after.captured.amount, after.failure_code, after.next_action))
    assert states == {(PaymentStatus.CAPTURED, 1999, None, None)}
    assert await shop.posting_count() == 120


@pytest.fixture
async def client(shop: StripeApp) -> AsyncIterator[Client]:
    signer = AccessTokenSigner(
        generate_private_key(), ISSUER, AUDIENCE, timedelta(minutes=15), utc_now
    )
    transport = httpx2.ASGITransport(app_of(shop, signer))
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as http:
        yield Client(shop, http, signer)


async def test_payment_by_http(shop: StripeApp, client: Client) -> None:
    payment = await shop.open()
    body = (await client.confirm(payment, NEEDS_ACTION)).json()
    again = (await client.confirm(payment, NEEDS_ACTION)).json()
    (intent,) = shop.stripe.intents.values()

    shop.stripe.finish_action(intent)
    event = json.dumps(shop.stripe.events[-1]).encode()
    headers = {
        "stripe-signature": signature(event, now_of(shop)),
        "content-type": "application/json; charset=utf-8",
    }
    path = "/payments/webhooks/stripe"
    received = await client.http.post(path, content=event, headers=headers)
    doubled = await client.http.post(path, content=event, headers=headers)
    forged = await client.http.post(path, content=event + b" ", headers=headers)

    assert body == again
    assert body["status"] == "requires_action"
    assert body["next_action"]["type"] == "redirect"
    assert [received.status_code, doubled.status_code, forged.status_code] == [200, 200, 401]
    assert [received.json()["duplicate"], doubled.json()["duplicate"]] == [False, True]
    paid = (await client.get(f"/payments/{payment.payment_id}", payment.user_id)).json()
    assert (paid["status"], paid["captured"]["amount"]) == ("captured", 1999)
    refund = await client.refund(payment, {"reason": "damaged"})
    assert (refund.status_code, refund.json()["status"]) == (201, "succeeded")
    await shop.assert_agrees(payment)
