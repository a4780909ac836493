"""Disputes: a payment shows the state that its dispute has at Stripe, however webhooks arrive."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest
from structlog.testing import capture_logs

from markethall.payments.contract.api import PaymentDispute, PaymentQuery, PaymentView
from markethall.shared.kernel.money import Money
from markethall.shared.observability.metrics import DISPUTE_CHANGES
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import STAFF
from tests.payments.stripe_app import StripeApp, stripe_app
from tests.payments.stripe_server import Fault, StripeServer


@pytest.fixture
async def shop(storage: tuple[str, Postgres | None]) -> AsyncIterator[StripeApp]:
    async with StripeServer() as server, stripe_app(*storage, server) as shop:
        yield shop


async def disputed(shop: StripeApp) -> tuple[PaymentView, dict[str, Any]]:
    """Return a payment whose customer has opened a dispute at Stripe, and the dispute."""
    payment = await shop.paid()
    intents = shop.stripe.intents.values()
    (intent,) = [
        one
        for one in intents
        if one["metadata"]["markethall_payment_id"] == str(payment.payment_id)
    ]
    return payment, shop.stripe.open_dispute(intent)


async def dispute_of(shop: StripeApp, payment: PaymentView) -> PaymentDispute:
    dispute = (await shop.current(payment)).dispute
    assert dispute
    return dispute


async def changes(shop: StripeApp) -> list[str]:
    """Return the statuses of the published events, the oldest first."""
    events = [one for one in await shop.events() if one.type == "payments.dispute_changed"]
    return [json.loads(one.payload)["status"] for one in events]


async def test_dispute_is_shown_and_published(shop: StripeApp) -> None:
    payment, dispute = await disputed(shop)
    counted = DISPUTE_CHANGES.labels("stripe", "needs_response")._value.get()

    with capture_logs() as logs:
        await shop.deliver(shop.stripe.events[-1])

    assert await dispute_of(shop, payment) == PaymentDispute(
        status="needs_response",
        reason="fraudulent",
        amount=Money(amount=1999, currency="EUR"),
        due_by=datetime.fromtimestamp(1_800_000_000, UTC),
        opened_at=datetime.fromtimestamp(dispute["created"], UTC),
        provider_reference=dispute["id"],
    )
    assert await changes(shop) == ["needs_response"]
    (line,) = [line for line in logs if line["event"] == "payment.dispute_changed"]
    assert (line["payment_id"], line["reason"]) == (str(payment.payment_id), "fraudulent")
    assert DISPUTE_CHANGES.labels("stripe", "needs_response")._value.get() == counted + 1
    await shop.assert_agrees(payment)


CHANGES = [
    ("updated", {"status": "under_review"}),
    ("funds_withdrawn", {}),
    ("funds_reinstated", {"status": "won"}),
    ("closed", {}),
]


async def test_any_order_of_doubled_events_gives_the_state_at_stripe(shop: StripeApp) -> None:
    for order in permutations(range(5)):
        payment, dispute = await disputed(shop)
        for change, fields in CHANGES:
            shop.stripe.change_dispute(dispute, change, **fields)
        events = shop.stripe.events[-5:]

        for index in order:
            for _ in range(2):
                await shop.deliver(events[index])

        assert (await dispute_of(shop, payment)).status == "won"
    assert set(await changes(shop)) == {"won"}


async def test_each_change_is_published_once(shop: StripeApp) -> None:
    payment, dispute = await disputed(shop)
    await shop.deliver(shop.stripe.events[-1])

    for change, fields in CHANGES:
        shop.stripe.change_dispute(dispute, change, **fields)
        for _ in range(2):
            await shop.deliver(shop.stripe.events[-1])

    assert (await dispute_of(shop, payment)).status == "won"
    assert await changes(shop) == ["needs_response", "under_review", "won"]


async def test_slow_lookup_does_not_replace_a_newer_state(shop: StripeApp) -> None:
    payment, dispute = await disputed(shop)
    opened = shop.stripe.events[-1]
    shop.stripe.change_dispute(dispute, "updated", status="under_review")
    updated = shop.stripe.events[-1]
    shop.stripe.change_dispute(dispute, "closed", status="lost")

    await asyncio.gather(*map(shop.deliver, [opened, updated, shop.stripe.events[-1]]))

    assert (await dispute_of(shop, payment)).status == "lost"
    assert await changes(shop) == ["lost"]


async def test_dispute_is_recorded_after_an_outage(shop: StripeApp) -> None:
    payment, _ = await disputed(shop)
    shop.stripe.fail("get_dispute", Fault.LOST_BEFORE)

    await shop.deliver(shop.stripe.events[-1])
    before = (await shop.current(payment)).dispute
    await shop.run_periodic_jobs()

    assert before is None
    assert (await dispute_of(shop, payment)).status == "needs_response"


async def test_earlier_dispute_does_not_replace_a_later_one(shop: StripeApp) -> None:
    payment, first = await disputed(shop)
    (intent,) = shop.stripe.intents.values()
    second = shop.stripe.open_dispute(intent)
    await shop.deliver(shop.stripe.events[-1])

    shop.stripe.change_dispute(first, "closed", status="won")
    await shop.deliver(shop.stripe.events[-1])

    assert (await dispute_of(shop, payment)).provider_reference == second["id"]
    assert await changes(shop) == ["needs_response"]


@pytest.mark.parametrize("id_", ["dp_404", "", None, 7, "../payment_intents", "dp_" + "1" * 300])
async def test_event_about_no_dispute_of_this_shop_changes_nothing(
    shop: StripeApp, id_: object
) -> None:
    payment = await shop.paid()

    await shop.deliver(shop.stripe.build_event("charge.dispute.created", {"id": id_}))
    await shop.run_periodic_jobs()

    assert (await shop.current(payment)).dispute is None


async def test_dispute_of_another_program_is_ignored(shop: StripeApp) -> None:
    payment = await shop.paid()
    (intent,) = shop.stripe.intents.values()
    dispute = shop.stripe.open_dispute(intent, payment_intent=None)

    await shop.deliver(shop.stripe.events[-1])
    requests = shop.stripe.requests["get_dispute"]
    await shop.run_periodic_jobs()

    assert dispute["id"] in shop.stripe.disputes
    assert (await shop.current(payment)).dispute is None
    assert shop.stripe.requests["get_dispute"] == requests, "the event is still pending"


@pytest.mark.parametrize("fields", [{"currency": "iqd"}, {"currency": "xxx"}, {"amount": 10**18}])
async def test_dispute_with_an_amount_that_is_not_supported_is_ignored_at_once(
    shop: StripeApp, fields: dict[str, Any]
) -> None:
    payment, dispute = await disputed(shop)
    shop.stripe.change_dispute(dispute, "updated", **fields)

    with capture_logs() as logs:
        await shop.deliver(shop.stripe.events[-1])
    requests = shop.stripe.requests["get_dispute"]
    await shop.run_periodic_jobs()

    (line,) = [line for line in logs if line["event"] == "stripe.dispute_unsupported"]
    assert (line["log_level"], line["provider_reference"]) == ("error", dispute["id"])
    assert (line["amount"], line["currency"]) == (dispute["amount"], dispute["currency"])
    assert (await shop.current(payment)).dispute is None
    assert shop.stripe.requests["get_dispute"] == requests, "the event is still pending"


async def test_payments_are_listed_by_whether_they_are_disputed(shop: StripeApp) -> None:
    payment, _ = await disputed(shop)
    await shop.deliver(shop.stripe.events[-1])
    other = await shop.paid()

    async def listed(disputed: bool | None) -> list[Any]:
        page = await shop.payment_api.list_payments(STAFF, PaymentQuery(disputed=disputed))
        return [one.payment_id for one in page.items]

    assert await listed(True) == [payment.payment_id]
    assert await listed(False) == [other.payment_id]
    assert await listed(None) == [other.payment_id, payment.payment_id]
