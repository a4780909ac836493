"""Concurrent commands are serializable: some sequential order of them gives the same result."""

from asyncio import gather
from datetime import timedelta
from typing import Any

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentStatus,
    RefundExceedsCaptured,
)
from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.internal import RefundView
from markethall.payments.domain.operation import Succeeded
from markethall.shared.idempotency.records import InFlight, StoredResponse
from markethall.shared.kernel.ids import new_id
from tests.payments.conftest import ORDERS_CONTEXT, PaymentsApp, attempt_without_key

CONCURRENCY = 20
# the number of repetitions; two commands conflict only if they meet within a short time
RACES = 300


@pytest.mark.parametrize("method", ["sandbox_ok", "sandbox_webhook_first"])
async def test_concurrent_confirms_with_one_key_charge_once(
    payments_app: PaymentsApp, method: str
) -> None:
    payment = await payments_app.open()

    results = await gather(
        *(payments_app.confirm_with_key(payment, "key", method) for _ in range(CONCURRENCY)),
        return_exceptions=True,
    )

    responses = {result[0] for result in results if isinstance(result, tuple)}
    rejected = [result for result in results if not isinstance(result, tuple)]
    assert len(responses) == 1
    assert all(
        isinstance(response, StoredResponse) and response.status == 200 for response in responses
    )
    assert all(isinstance(error, InFlight) for error in rejected)
    await assert_charged_once(payments_app, payment)


async def test_concurrent_opens_create_one_payment(payments_app: PaymentsApp) -> None:
    """All concurrent attempts return the same payment. None raises OrderHasPayment."""
    for _ in range(RACES):
        ids: dict[str, Any] = {"payment_id": new_id(), "order_id": new_id(), "user_id": new_id()}

        opened = await gather(*(payments_app.open(**ids) for _ in range(4)))

        assert {payment.payment_id for payment in opened} == {ids["payment_id"]}


@pytest.mark.parametrize("method", ["sandbox_ok", "sandbox_webhook_first"])
async def test_concurrent_confirms_with_many_keys_charge_once(
    payments_app: PaymentsApp, method: str
) -> None:
    payment = await payments_app.open()

    results = await gather(
        *(payments_app.confirm_with_key(payment, f"key {n}", method) for n in range(CONCURRENCY)),
        return_exceptions=True,
    )

    rejected = [result for result in results if not isinstance(result, tuple)]
    assert len(rejected) == CONCURRENCY - 1
    for error in rejected:
        assert isinstance(error, PaymentInProgress | InvalidPaymentTransition)
    await assert_charged_once(payments_app, payment)


async def test_confirm_and_webhooks_race_charges_once(payments_app: PaymentsApp) -> None:
    payments = [await payments_app.open() for _ in range(10)]
    attempts = [attempt_without_key() for _ in payments]

    for payment, attempt in zip(payments, attempts, strict=True):
        await gather(
            payments_app.confirm(payment, attempt=attempt),
            *(payments_app.send(attempt.id, Succeeded("ch_1")) for _ in range(3)),
        )
    await payments_app.run_periodic_jobs()

    assert await payments_app.charged() == await payments_app.posting_count() == len(payments)
    assert (await payments_app.event_types()).count("payment_captured") == len(payments)


async def test_concurrent_reconcilers_settle_once(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_timeout_after")
    payments_app.clock.advance(16)

    await gather(*(payments_app.run_periodic_jobs() for _ in range(5)))

    await assert_charged_once(payments_app, payment)


async def test_reconciler_and_retry_race_settles_once(payments_app: PaymentsApp) -> None:
    attempt = attempt_without_key()
    payment = await payments_app.confirm(
        await payments_app.open(), "sandbox_timeout_after", attempt
    )
    payments_app.clock.advance(16)

    await gather(
        payments_app.run_periodic_jobs(),
        *(payments_app.confirm(payment, attempt=attempt) for _ in range(5)),
        payments_app.send(attempt.id, Succeeded("ch_1")),
    )

    await assert_charged_once(payments_app, payment)


async def test_pay_and_cancel_race_has_one_outcome(payments_app: PaymentsApp) -> None:
    for _ in range(10):
        payment = await payments_app.open()
        before = await payments_app.charged()

        await gather(
            payments_app.confirm(payment),
            payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id),
            return_exceptions=True,
        )

        ended = (await payments_app.current(payment)).status
        assert ended in {PaymentStatus.CAPTURED, PaymentStatus.CANCELLED}
        assert await payments_app.charged() - before == (ended is PaymentStatus.CAPTURED)


async def test_pay_and_expiry_race_has_one_outcome(payments_app: PaymentsApp) -> None:
    for _ in range(10):
        soon = payments_app.clock.now + timedelta(microseconds=20)
        payment = await payments_app.open(expires_at=soon)
        before = await payments_app.charged()

        await gather(
            payments_app.confirm(payment), payments_app.run_periodic_jobs(), return_exceptions=True
        )
        payments_app.clock.advance(1)
        await payments_app.run_periodic_jobs()

        ended = (await payments_app.current(payment)).status
        assert ended in {PaymentStatus.CAPTURED, PaymentStatus.EXPIRED}
        assert await payments_app.charged() - before == (ended is PaymentStatus.CAPTURED)


async def test_concurrent_refunds_never_exceed_captured_amount(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1000)

    results = await gather(
        *(payments_app.refund(payment, 100) for _ in range(CONCURRENCY)), return_exceptions=True
    )

    assert sum(isinstance(result, RefundView) for result in results) == 10
    assert sum(isinstance(result, RefundExceedsCaptured) for result in results) == 10
    assert (await payments_app.current(payment)).refunded.amount == 1000
    assert [charge.refunded for charge in await payments_app.sandbox_ledger.list_charges()] == [
        1000
    ]
    assert await payments_app.posting_count() == 11


async def test_concurrent_identical_refunds_apply_once(payments_app: PaymentsApp) -> None:
    payment, refund_id = await payments_app.paid(1000), new_id()

    results = await gather(
        *(payments_app.refund(payment, 100, refund_id) for _ in range(CONCURRENCY))
    )

    assert {refund.refund_id for refund in results} == {refund_id}
    assert [charge.refunded for charge in await payments_app.sandbox_ledger.list_charges()] == [100]
    assert await payments_app.posting_count() == 2


async def test_open_and_cancel_race_ends_cancelled(payments_app: PaymentsApp) -> None:
    for _ in range(10):
        payment_id = new_id()

        payment, _ = await gather(
            payments_app.open(payment_id=payment_id),
            payments_app.payments.cancel(ORDERS_CONTEXT, payment_id),
        )

        assert (await payments_app.current(payment)).status is PaymentStatus.CANCELLED


async def assert_charged_once(payments_app: PaymentsApp, payment: PaymentView) -> None:
    assert (await payments_app.current(payment)).status is PaymentStatus.CAPTURED
    assert await payments_app.charged() == 1
    assert await payments_app.posting_count() == 1
    assert (await payments_app.event_types()).count("payment_captured") == 1
