"""Staff record money that arrives outside of the shop, for example by bank transfer."""

import os
from asyncio import gather
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from markethall.payments.contract import InvalidPaymentTransition, PaymentInProgress, PaymentStatus
from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.errors import (
    AmountExceedsDue,
    PaymentNotFound,
    UnsupportedByProvider,
)
from markethall.payments.contract.statuses import OperationKind, OperationStatus
from markethall.payments.domain.operation import Succeeded
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import CurrencyMismatch
from markethall.shared.kernel.pagination import PageQuery
from tests.payments.conftest import (
    ORDERS_CONTEXT,
    STAFF,
    PaymentsApp,
    attempt_without_key,
    user_context,
)
from tests.payments.manual_refunds import pay_due_refunds
from tests.payments.test_router import Client, assert_problem, client

__all__ = ["client"]

TRANSFER = "manual:bank_transfer"
WEEK = timedelta(days=7).total_seconds()
ENDINGS = ["cancelled", "expired"]
# `make test-payments` runs all rounds
FULL = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
RACES = 200 if FULL else 30


async def awaited(payments_app: PaymentsApp, amount: int = 1000) -> PaymentView:
    """Return a payment that waits for a transfer."""
    return await payments_app.confirm(await payments_app.open(amount), TRANSFER)


async def end(payments_app: PaymentsApp, payment: PaymentView, ending: str) -> None:
    if ending == "cancelled":
        await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)
    else:
        payments_app.clock.advance(WEEK)
        await payments_app.container.payment_jobs().expire_overdue_payments()


def amounts(payment: PaymentView) -> tuple[int, int, int]:
    return payment.authorized.amount, payment.captured.amount, payment.refunded.amount


async def test_transfer_captures_the_payment(payments_app: PaymentsApp) -> None:
    payment = await awaited(payments_app)

    paid = await payments_app.mark_paid(payment, 1000)

    assert (paid.status, paid.next_action) == (PaymentStatus.CAPTURED, None)
    assert amounts(paid) == (1000, 1000, 0)
    assert (await payments_app.event_types())[-1] == "payment_captured"
    assert await payments_app.posting_count() == 1
    operations = await payments_app.payment_api.list_operations(
        STAFF, payment.payment_id, PageQuery()
    )
    receipt = operations.items[-1]
    assert (receipt.kind, receipt.status) == (OperationKind.CAPTURE, OperationStatus.SUCCEEDED)
    assert (receipt.provider, receipt.provider_reference) == ("manual", "2026-11-30/17")


async def test_staff_confirm_the_payment_of_a_customer_with_a_manual_method(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.open(1000)

    with pytest.raises(UnsupportedByProvider):
        await payments_app.confirm(payment, "sandbox_ok", ctx=STAFF)
    with pytest.raises(PaymentNotFound):
        await payments_app.confirm(payment, TRANSFER, ctx=user_context(new_id()))
    waiting = await payments_app.confirm(payment, TRANSFER, ctx=STAFF)
    paid = await payments_app.mark_paid(payment, 1000)

    assert waiting.status is PaymentStatus.REQUIRES_ACTION
    assert (paid.status, paid.user_id) == (PaymentStatus.CAPTURED, payment.user_id)


async def test_staff_confirm_a_free_payment(payments_app: PaymentsApp) -> None:
    paid = await payments_app.confirm(await payments_app.open(0), "free", ctx=STAFF)

    assert paid.status is PaymentStatus.CAPTURED


async def test_partial_amounts_add_up(payments_app: PaymentsApp) -> None:
    payment = await awaited(payments_app)

    first = await payments_app.mark_paid(payment, 300)
    second = await payments_app.mark_paid(payment, 699)
    events = await payments_app.event_types()
    last = await payments_app.mark_paid(payment, 1)

    assert (first.status, amounts(first)) == (PaymentStatus.REQUIRES_ACTION, (300, 300, 0))
    assert (second.status, amounts(second)) == (PaymentStatus.REQUIRES_ACTION, (999, 999, 0))
    assert first.next_action == second.next_action == payment.next_action
    assert events == ["payment_status_changed"]
    assert (last.status, amounts(last)) == (PaymentStatus.CAPTURED, (1000, 1000, 0))
    assert await payments_app.posting_count() == 3


async def test_retry_records_once(payments_app: PaymentsApp) -> None:
    payment, attempt = await awaited(payments_app), attempt_without_key()

    for _ in range(3):
        again = await payments_app.mark_paid(payment, 300, attempt)

    assert amounts(again) == (300, 300, 0)
    assert await payments_app.posting_count() == 1


async def test_more_than_due_is_refused(payments_app: PaymentsApp) -> None:
    payment = await awaited(payments_app)
    await payments_app.mark_paid(payment, 300)

    with pytest.raises(AmountExceedsDue) as error:
        await payments_app.mark_paid(payment, 701)
    with pytest.raises(CurrencyMismatch):
        await payments_app.mark_paid(payment, 700, currency="USD")

    assert error.value.details == {
        "requested": {"amount": 701, "currency": "EUR"},
        "due": {"amount": 700, "currency": "EUR"},
    }
    assert amounts(await payments_app.current(payment)) == (300, 300, 0)


async def test_partly_paid_payment_takes_no_charge(payments_app: PaymentsApp) -> None:
    payment = await awaited(payments_app)
    await payments_app.mark_paid(payment, 300)

    for method in ("sandbox_ok", TRANSFER):
        with pytest.raises(InvalidPaymentTransition):
            await payments_app.confirm(payment, method)

    assert await payments_app.charged() == 0


async def test_transfer_after_a_declined_card_counts(payments_app: PaymentsApp) -> None:
    payment = await awaited(payments_app)
    await payments_app.confirm(payment, "sandbox_declined")

    paid = await payments_app.mark_paid(payment, 1000)

    assert (paid.status, paid.provider) == (PaymentStatus.CAPTURED, "manual")
    assert paid.failure_code is None
    assert await payments_app.posting_count() == 1


async def test_only_a_payment_that_waits_is_marked(payments_app: PaymentsApp) -> None:
    new, paid = await payments_app.open(), await payments_app.paid()
    in_progress = await payments_app.confirm(await awaited(payments_app), "sandbox_timeout_before")
    done = await awaited(payments_app)
    await payments_app.mark_paid(done, 1000)

    for payment, error in (
        (new, UnsupportedByProvider),
        (paid, UnsupportedByProvider),
        (in_progress, PaymentInProgress),
        (done, InvalidPaymentTransition),
        (new.model_copy(update={"payment_id": new_id()}), PaymentNotFound),
    ):
        with pytest.raises(error):
            await payments_app.mark_paid(payment, 1)


async def test_staff_learn_that_a_refund_is_due(payments_app: PaymentsApp) -> None:
    payment = await awaited(payments_app)
    await payments_app.mark_paid(payment, 1000)

    with capture_logs() as logs:
        refunds = [await payments_app.refund(payment, 400), await payments_app.refund(payment)]

    assert amounts(await payments_app.current(payment)) == (1000, 1000, 0)
    assert await payments_app.posting_count() == 1
    due = [line for line in logs if line["event"] == "payment.manual_refund_due"]
    assert [(line["refund_id"], line["amount"], line["currency"]) for line in due] == [
        (str(refund.refund_id), refund.amount.amount, "EUR") for refund in refunds
    ]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_partial_amount_of_ended_payment_is_refunded(
    payments_app: PaymentsApp, ending: str
) -> None:
    payment = await awaited(payments_app)
    await payments_app.mark_paid(payment, 300)
    await end(payments_app, payment, ending)

    await payments_app.run_periodic_jobs()
    await payments_app.run_periodic_jobs()
    await pay_due_refunds(payments_app.container)
    first = await payments_app.current(payment)
    await payments_app.mark_paid(payment, 700)
    await payments_app.run_periodic_jobs()
    await pay_due_refunds(payments_app.container)

    assert (first.status, amounts(first)) == (PaymentStatus(ending), (300, 300, 300))
    after = await payments_app.current(payment)
    assert (after.status, amounts(after)) == (PaymentStatus(ending), (1000, 1000, 1000))
    assert await payments_app.posting_count() == 4
    assert (await payments_app.event_types())[-2:] == ["payment_refunded", "payment_refunded"]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_complete_amount_of_ended_payment_captures_it(
    payments_app: PaymentsApp, ending: str
) -> None:
    """After the capture, the `orders` context reinstates the order or refunds the payment."""
    payment = await awaited(payments_app)
    await payments_app.mark_paid(payment, 300)
    await end(payments_app, payment, ending)

    paid = await payments_app.mark_paid(payment, 700)
    await payments_app.run_periodic_jobs()

    assert (paid.status, amounts(paid)) == (PaymentStatus.CAPTURED, (1000, 1000, 0))
    assert await payments_app.current(payment) == paid
    assert (await payments_app.event_types())[-1] == "payment_captured"


@pytest.mark.parametrize("ending", ENDINGS)
async def test_rest_that_arrives_while_the_first_part_waits_for_its_refund_is_refunded(
    payments_app: PaymentsApp, ending: str
) -> None:
    payment = await awaited(payments_app)
    await payments_app.mark_paid(payment, 400)
    await end(payments_app, payment, ending)
    await payments_app.container.payment_jobs().refund_ended_payments()

    rest = await payments_app.mark_paid(payment, 600)
    await payments_app.container.payment_jobs().refund_ended_payments()
    refunds = await pay_due_refunds(payments_app.container)

    assert (rest.status, *amounts(rest)) == (ending, 1000, 1000, 0)
    assert sorted(refund.amount.amount for refund in refunds) == [400, 600]
    after = await payments_app.current(payment)
    assert (after.status, *amounts(after)) == (ending, 1000, 1000, 1000)


async def test_late_card_is_refunded_when_a_transfer_has_arrived(payments_app: PaymentsApp) -> None:
    attempt, opened = attempt_without_key(), await payments_app.open(1999)
    await payments_app.confirm(opened, "sandbox_action_required", attempt)
    payment = await payments_app.confirm(opened, TRANSFER)
    await payments_app.mark_paid(payment, 500)

    await payments_app.send(attempt.id, Succeeded("ch_1"))

    charge = await payments_app.sandbox_ledger.get_charge(attempt.id)
    assert charge is not None
    assert (charge.status, charge.refunded) == ("succeeded", 1999)
    assert amounts(await payments_app.current(payment)) == (500, 500, 0)
    assert await payments_app.posting_count() == 1


async def test_concurrent_receipts_never_exceed_the_amount(payments_app: PaymentsApp) -> None:
    payment = await awaited(payments_app)

    results = await gather(
        *(payments_app.mark_paid(payment, 300) for _ in range(20)), return_exceptions=True
    )

    assert sum(isinstance(result, PaymentView) for result in results) == 3
    assert sum(isinstance(result, AmountExceedsDue) for result in results) == 17
    assert amounts(await payments_app.current(payment)) == (900, 900, 0)
    assert await payments_app.posting_count() == 3


@pytest.mark.parametrize("part", [400, 1000])
async def test_mark_paid_races_with_expiry_and_cancel(payments_app: PaymentsApp, part: int) -> None:
    """Each payment is either captured or refunded, whichever command comes first."""
    payments = [await awaited(payments_app) for _ in range(RACES)]
    payments_app.clock.advance(WEEK - 0.01)
    jobs = payments_app.container.payment_jobs()
    for payment in payments:
        await gather(
            payments_app.mark_paid(payment, part),
            payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id),
            jobs.expire_overdue_payments(),
            jobs.refund_ended_payments(),
            return_exceptions=True,
        )
        payments_app.clock.advance(0.01 / RACES)
    payments_app.clock.advance(WEEK)
    await payments_app.run_periodic_jobs()
    while await pay_due_refunds(payments_app.container):
        pass  # each call marks one page

    for payment in payments:
        now = await payments_app.current(payment)
        is_paid = part == 1000 and now.status is PaymentStatus.CAPTURED
        assert is_paid or now.status in {PaymentStatus.CANCELLED, PaymentStatus.EXPIRED}
        assert amounts(now) == (part, part, 0 if is_paid else part)
    await payments_app.posting_count()


async def test_staff_mark_paid_over_http(client: Client) -> None:
    payment = await awaited(client.payments_app)
    path = f"/payments/{payment.payment_id}/mark-paid"
    body = {"amount": {"amount": 400, "currency": "EUR"}, "reference": "bank 17"}
    too_much = body | {"amount": {"amount": 601, "currency": "EUR"}}

    for _ in range(2):
        response = await client.post(path, body, role="staff:payments", idempotency_key="1")
    keyless = await client.post(path, body, role="staff:payments")
    by_customer = await client.post(path, body, payment.user_id, idempotency_key="2")
    refused = await client.post(path, too_much, role="staff:payments", idempotency_key="3")
    unnamed = body | {"reference": ""}
    invalid = await client.post(path, unnamed, role="staff:payments", idempotency_key="4")

    assert response.status_code == 200
    assert response.headers["idempotency-replayed"] == "true"
    assert response.json()["captured"] == {"amount": 400, "currency": "EUR"}
    assert response.json()["next_action"]["type"] == "await_transfer"
    assert_problem(keyless, 400, "idempotency.key_missing")
    assert by_customer.status_code == 403
    assert_problem(refused, 409, "payments.amount_exceeds_due")
    assert_problem(invalid, 422, "request.invalid")
