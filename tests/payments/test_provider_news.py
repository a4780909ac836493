"""Webhooks that contradict the recorded status: the status at the provider is applied."""

import json
from itertools import permutations
from random import Random
from typing import Any
from uuid import UUID

import pytest

from markethall.payments.contract import PaymentStatus
from markethall.payments.contract.api import PaymentView
from markethall.payments.gateway.sandbox_webhooks import SIGNATURE_HEADER
from markethall.payments.ports import PaymentGatewayTimeout
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.observability.metrics import PROVIDER_CONFLICTS, PROVIDER_WEBHOOKS
from tests.payments.conftest import (
    ANONYMOUS,
    ORDERS_CONTEXT,
    STAFF,
    PaymentsApp,
    attempt_without_key,
)

EUR = {"amount": 1999, "currency": "EUR"}


def results(result: str) -> float:
    return float(PROVIDER_WEBHOOKS.labels("sandbox", result)._value.get())


async def send_event(
    payments_app: PaymentsApp, operation_id: UUID, event_type: str, name: str = "", **data: Any
) -> bool:
    """Send a signed event; return whether it was a duplicate."""
    event = {
        "event_id": f"{event_type} {operation_id} {name}",
        "type": event_type,
        "data": {"operation_id": str(operation_id), "reference": "ch_1", **data},
    }
    body = json.dumps(event).encode()
    headers = {
        SIGNATURE_HEADER: payments_app.webhooks.compute_signature(body, payments_app.clock()),
        "content-type": "application/json",
    }
    receipt = await payments_app.payment_api.receive_webhook(ANONYMOUS, "sandbox", headers, body)
    return receipt.duplicate


async def confirmed(
    payments_app: PaymentsApp, method: str
) -> tuple[PaymentView, IdempotentCommand]:
    attempt = attempt_without_key()
    return await payments_app.confirm(await payments_app.open(), method, attempt), attempt


@pytest.mark.parametrize("method", ["sandbox_action_required", "sandbox_declined"])
async def test_late_success_captures_payment(payments_app: PaymentsApp, method: str) -> None:
    payment, attempt = await confirmed(payments_app, method)
    applied = results("applied")

    await send_event(payments_app, attempt.id, "charge.succeeded", amount=EUR)

    after = await payments_app.current(payment)
    assert (after.status, after.captured) == (PaymentStatus.CAPTURED, payment.amount)
    assert (after.failure_code, after.next_action) == (None, None)
    assert await payments_app.charged() == await payments_app.posting_count() == 1
    assert (await payments_app.event_types())[-1] == "payment_captured"
    assert results("applied") == applied + 1


@pytest.mark.parametrize("ending", ["cancelled", "expired"])
async def test_late_success_captures_ended_payment(payments_app: PaymentsApp, ending: str) -> None:
    """After the capture, the `orders` context reinstates the order or refunds the payment."""
    payment, attempt = await confirmed(payments_app, "sandbox_action_required")
    if ending == "cancelled":
        await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)
    else:
        payments_app.clock.advance(900)
        await payments_app.run_periodic_jobs()
    ended = await payments_app.current(payment)

    await send_event(payments_app, attempt.id, "charge.succeeded")
    captured = await payments_app.current(payment)
    await payments_app.refund(payment)

    assert ended.status is PaymentStatus(ending)
    assert captured.status is PaymentStatus.CAPTURED
    assert (await payments_app.event_types())[-2:] == ["payment_captured", "payment_refunded"]
    assert await payments_app.posting_count() == 2


async def test_failed_action_is_applied(payments_app: PaymentsApp) -> None:
    payment, attempt = await confirmed(payments_app, "sandbox_action_required")

    await send_event(payments_app, attempt.id, "charge.failed", failure_code="expired_card")

    after = await payments_app.current(payment)
    assert (after.status, after.failure_code) == (PaymentStatus.FAILED, "expired_card")
    assert await payments_app.event_types() == ["payment_status_changed", "payment_failed"]


@pytest.mark.parametrize("method", ["manual:bank_transfer", "sandbox_action_required"])
async def test_failed_action_of_an_earlier_charge_changes_nothing(
    payments_app: PaymentsApp, method: str
) -> None:
    """The payment waits for the action of a later charge, by another method."""
    payment, attempt = await confirmed(payments_app, "sandbox_action_required")
    current = await payments_app.confirm(payment, method)

    await send_event(payments_app, attempt.id, "charge.failed")
    after = await payments_app.current(payment)
    await send_event(payments_app, attempt.id, "charge.succeeded")

    assert after == current
    assert after.status is PaymentStatus.REQUIRES_ACTION
    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED


@pytest.mark.parametrize("event_type", ["charge.failed", "charge.requires_action"])
async def test_older_news_changes_nothing(payments_app: PaymentsApp, event_type: str) -> None:
    payment, attempt = await confirmed(payments_app, "sandbox_ok")
    superseded = results("superseded")

    await send_event(payments_app, attempt.id, event_type)

    assert await payments_app.current(payment) == payment
    assert results("superseded") == superseded + 1


@pytest.mark.parametrize(
    ("event_type", "data"),
    [
        ("charge.succeeded", {"amount": EUR | {"amount": 1}}),
        ("charge.succeeded", {"amount": EUR | {"currency": "USD"}}),
        ("refund.succeeded", {}),
    ],
)
async def test_news_about_something_else_is_kept_for_staff(
    payments_app: PaymentsApp, event_type: str, data: dict[str, Any]
) -> None:
    payment, attempt = await confirmed(payments_app, "sandbox_action_required")
    dead = results("dead")

    await send_event(payments_app, attempt.id, event_type, **data)

    assert await payments_app.current(payment) == payment
    assert await payments_app.posting_count() == 0
    assert results("dead") == dead + 1


async def test_news_waits_while_provider_does_not_answer(payments_app: PaymentsApp) -> None:
    payment, attempt = await confirmed(payments_app, "sandbox_action_required")
    payments_app.gateway.before = PaymentGatewayTimeout()

    await send_event(payments_app, attempt.id, "charge.succeeded")
    meanwhile = await payments_app.current(payment)
    await payments_app.run_periodic_jobs()

    assert meanwhile.status is PaymentStatus.REQUIRES_ACTION
    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED


async def test_second_charge_of_captured_payment_is_refunded(payments_app: PaymentsApp) -> None:
    payment, attempt = await confirmed(payments_app, "sandbox_action_required")
    paid = await payments_app.confirm(payment)
    refunded = results("refunded")

    for name in ("once", "twice"):
        await send_event(payments_app, attempt.id, "charge.succeeded", name)

    charge = await payments_app.sandbox_ledger.get_charge(attempt.id)
    assert charge is not None
    assert (charge.status, charge.refunded) == ("succeeded", 1999)
    assert await payments_app.current(payment) == paid
    assert await payments_app.posting_count() == 1
    assert results("refunded") == refunded + 2


async def test_success_waits_for_another_charge_in_progress(payments_app: PaymentsApp) -> None:
    payment, attempt = await confirmed(payments_app, "sandbox_action_required")
    unknown = await payments_app.confirm(payment, "sandbox_timeout_before")

    await send_event(payments_app, attempt.id, "charge.succeeded")
    meanwhile = await payments_app.current(payment)
    await payments_app.reconcile()

    assert meanwhile == unknown
    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED
    assert await payments_app.charged() == await payments_app.posting_count() == 1


async def test_response_that_contradicts_webhook_is_applied(payments_app: PaymentsApp) -> None:
    """First a webhook reports that the charge failed, then the response that it succeeded."""
    payment, attempt = await payments_app.open(), attempt_without_key()
    payments_app.gateway.before_response = lambda: send_event(
        payments_app, attempt.id, "charge.failed"
    )

    paid = await payments_app.confirm(payment, attempt=attempt)

    assert paid.status is PaymentStatus.CAPTURED
    assert await payments_app.charged() == await payments_app.posting_count() == 1


METHODS = ["ok", "declined", "action_required", "timeout_after", "timeout_before", "webhook_first"]
ORDERS_PER_SCENARIO = 10
NEWS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "with success": [
        ("charge.requires_action", {"next_action": "https://example.com/"}),
        ("charge.failed", {"failure_code": "expired_card"}),
        ("charge.succeeded", {"amount": EUR}),
        ("charge.succeeded", {"amount": EUR | {"amount": 5}}),
        ("refund.failed", {}),
    ],
    "without success": [
        ("charge.requires_action", {"next_action": "https://example.com/"}),
        ("charge.failed", {"failure_code": "expired_card"}),
        ("charge.failed", {"failure_code": "card_declined"}),
        ("charge.succeeded", {"amount": EUR | {"currency": "USD"}}),
        ("refund.succeeded", {}),
    ],
}
STATUS_BY_CHARGE = {
    "succeeded": PaymentStatus.CAPTURED,
    "failed": PaymentStatus.FAILED,
    "requires_action": PaymentStatus.REQUIRES_ACTION,
}


@pytest.mark.parametrize("news", NEWS)
async def test_events_in_any_order_give_the_state_of_the_provider(
    payments_app: PaymentsApp, news: str
) -> None:
    """60 payments get five events each; each event is sent twice, all in random order."""
    random = Random(20261129)
    payments = [
        (method, *await confirmed(payments_app, f"sandbox_{method}"))
        for method in METHODS
        for _ in range(ORDERS_PER_SCENARIO)
    ]
    deliveries = [
        (attempt.id, number) for _, _, attempt in payments for number in range(len(NEWS[news]))
    ] * 2
    random.shuffle(deliveries)

    for operation_id, number in deliveries:
        event_type, data = NEWS[news][number]
        await send_event(payments_app, operation_id, event_type, str(number), **data)
    await payments_app.reconcile()

    states: dict[str, set[PaymentStatus]] = {method: set() for method in METHODS}
    for method, payment, attempt in payments:
        charge = await payments_app.sandbox_ledger.get_charge(attempt.id)
        after = await payments_app.current(payment)
        assert charge is not None
        assert after.status is STATUS_BY_CHARGE[charge.status]
        states[method].add(after.status)
    assert all(len(found) == 1 for found in states.values())
    report = await payments_app.ledger.verify(STAFF)
    assert report.intact, report.findings
    assert report.posting_count == await payments_app.charged()


async def test_all_orders_of_five_events_give_the_state_of_the_provider(
    payments_app: PaymentsApp,
) -> None:
    """Each of 120 payments gets the same five events twice, in a different order.

    Of the ten deliveries, the first zero to five arrive before the charge is recorded.
    """
    news, states = NEWS["with success"], set()
    for number, order in enumerate(permutations(range(len(news)))):
        payment, attempt = await payments_app.open(), attempt_without_key()
        deliveries = order * 2
        early = number % 6

        for position, index in enumerate(deliveries):
            if position == early:
                await payments_app.confirm(payment, "sandbox_action_required", attempt)
            event_type, data = news[index]
            await send_event(payments_app, attempt.id, event_type, str(index), **data)
        await payments_app.reconcile()

        after = await payments_app.current(payment)
        charge = await payments_app.sandbox_ledger.get_charge(attempt.id)
        assert charge is not None
        states.add((after.status, after.captured.amount, charge.status, charge.amount))
    assert states == {(PaymentStatus.CAPTURED, 1999, "succeeded", 1999)}
    assert await payments_app.posting_count() == await payments_app.charged() == 120
    assert (await payments_app.event_types()).count("payment_captured") == 120


async def test_response_that_a_webhook_has_overtaken_is_no_conflict(
    payments_app: PaymentsApp,
) -> None:
    """The customer has already acted when the response that requires the action arrives."""
    payment, attempt = await payments_app.open(), attempt_without_key()
    payments_app.gateway.before_response = lambda: send_event(
        payments_app, attempt.id, "charge.succeeded"
    )
    before = PROVIDER_CONFLICTS.labels("charge")._value.get()

    paid = await payments_app.confirm(payment, "sandbox_action_required", attempt)

    assert paid.status is PaymentStatus.CAPTURED
    assert PROVIDER_CONFLICTS.labels("charge")._value.get() == before


async def test_conflict_counts_for_the_alarm(payments_app: PaymentsApp) -> None:
    payment, attempt = await confirmed(payments_app, "sandbox_action_required")
    await payments_app.confirm(payment)
    before = PROVIDER_CONFLICTS.labels("charge")._value.get()

    await send_event(payments_app, attempt.id, "charge.succeeded")

    assert PROVIDER_CONFLICTS.labels("charge")._value.get() == before + 1
