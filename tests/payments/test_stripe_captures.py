"""Authorizations, captures and voids at the fake of Stripe, with their webhooks."""

from collections.abc import AsyncIterator
from itertools import permutations
from typing import Any

import pytest

from markethall.payments.contract import PaymentStatus
from markethall.payments.contract.api import PaymentView
from markethall.payments.ports import Capability
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import attempt_without_key
from tests.payments.stripe_app import NEEDS_ACTION, OK, StripeApp, stripe_app
from tests.payments.stripe_server import Fault, StripeServer

TWICE = 2


@pytest.fixture
async def shop(storage: tuple[str, Postgres | None]) -> AsyncIterator[StripeApp]:
    async with (
        StripeServer() as server,
        stripe_app(*storage, server, payments_capture="on_fulfilment") as shop,
    ):
        yield shop


async def authorized(shop: StripeApp, amount: int = 1000) -> PaymentView:
    payment = await shop.confirm(await shop.open(amount), OK)
    assert payment.status is PaymentStatus.AUTHORIZED
    return payment


def amounts(payment: PaymentView) -> tuple[str, int, int]:
    return payment.status.value, payment.captured.amount, payment.refunded.amount


async def test_part_is_captured_once_and_the_rest_released(shop: StripeApp) -> None:
    payment = await authorized(shop)

    captured = await shop.capture(payment, 600)
    await shop.refund(payment, 100)

    assert Capability.MULTIPLE_CAPTURES not in shop.gateway.capabilities
    assert amounts(captured) == ("captured", 600, 0)
    assert amounts(await shop.current(payment)) == ("captured", 600, 100)
    await shop.assert_agrees(payment)


async def test_voided_payment_takes_nothing(shop: StripeApp) -> None:
    payment = await authorized(shop)

    voided = await shop.void(payment)

    assert amounts(voided) == ("voided", 0, 0)
    await shop.assert_agrees(payment)


@pytest.mark.parametrize("command", ["capture", "void"])
@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE, Fault.LOST_AFTER])
async def test_lost_answer_is_reconciled(shop: StripeApp, command: str, fault: Fault) -> None:
    payment, attempt = await authorized(shop), attempt_without_key()
    shop.stripe.fail("capture" if command == "capture" else "cancel", fault)

    unknown = await getattr(shop, command)(payment, attempt=attempt)
    await shop.reconcile()
    settled = await getattr(shop, command)(payment, attempt=attempt)

    assert unknown.status is PaymentStatus.AUTHORIZED
    assert settled.status.value == ("captured" if command == "capture" else "voided")
    await shop.assert_agrees(payment)


async def test_customer_authorizes_after_an_action(shop: StripeApp) -> None:
    payment, attempt = await shop.open(1000), attempt_without_key()
    waiting = await shop.confirm(payment, NEEDS_ACTION, attempt)

    shop.stripe.finish_action(shop.stripe.intent_of(attempt.id))
    for event in list(shop.stripe.events) * TWICE:
        await shop.deliver(event)

    assert waiting.status is PaymentStatus.REQUIRES_ACTION
    assert amounts(await shop.current(payment)) == ("authorized", 0, 0)
    await shop.capture(payment)
    await shop.assert_agrees(payment)


async def test_webhooks_in_any_sequence_change_nothing(shop: StripeApp) -> None:
    payment = await authorized(shop)
    await shop.capture(payment, 600)
    await shop.refund(payment, 100)
    events: list[dict[str, Any]] = list(shop.stripe.events)
    before = amounts(await shop.current(payment))

    for number, sequence in enumerate(permutations(events)):
        for event in sequence * TWICE:
            await shop.deliver(event | {"id": f"{event['id']}_{number}"})

    assert len(events) >= 3
    assert amounts(await shop.current(payment)) == before == ("captured", 600, 100)
    await shop.assert_agrees(payment)


async def test_capture_is_settled_by_its_webhook(shop: StripeApp) -> None:
    payment = await authorized(shop)
    shop.stripe.fail("capture", Fault.LOST_AFTER)
    await shop.capture(payment, 600)

    for event in shop.stripe.events:
        await shop.deliver(event)

    assert amounts(await shop.current(payment)) == ("captured", 600, 0)
    await shop.assert_agrees(payment)
