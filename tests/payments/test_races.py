"""Many at once are exactly as if one after the other."""

from asyncio import gather
from datetime import timedelta
from typing import Any

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    Payment,
    PaymentInProgress,
    PaymentStatus,
    Refund,
    RefundExceedsCaptured,
)
from markethall.payments.domain import Succeeded
from markethall.shared.idempotency import Answer, InFlight
from markethall.shared.ids import new_id
from tests.payments.conftest import NEIGHBOUR, Stall, unkeyed

MANY = 20
# the moment in which two may clash is short
RACES = 300


@pytest.mark.parametrize("method", ["sandbox_ok", "sandbox_webhook_first"])
async def test_one_key_many_times_is_one_charge(stall: Stall, method: str) -> None:
    payment = await stall.open()

    results = await gather(
        *(stall.confirm_with_key(payment, "key", method) for _ in range(MANY)),
        return_exceptions=True,
    )

    answers = {result[0] for result in results if isinstance(result, tuple)}
    refused = [result for result in results if not isinstance(result, tuple)]
    assert len(answers) == 1
    assert all(isinstance(answer, Answer) and answer.status == 200 for answer in answers)
    assert all(isinstance(refusal, InFlight) for refusal in refused)
    await once_only(stall, payment)


async def test_a_payment_opened_twice_at_once_is_one(stall: Stall) -> None:
    """A retry meets what it repeats: neither is told that the order has another payment."""
    for _ in range(RACES):
        ids: dict[str, Any] = {"payment_id": new_id(), "order_id": new_id(), "user_id": new_id()}

        opened = await gather(*(stall.open(**ids) for _ in range(4)))

        assert {payment.payment_id for payment in opened} == {ids["payment_id"]}


@pytest.mark.parametrize("method", ["sandbox_ok", "sandbox_webhook_first"])
async def test_many_keys_are_one_charge(stall: Stall, method: str) -> None:
    payment = await stall.open()

    results = await gather(
        *(stall.confirm_with_key(payment, f"key {n}", method) for n in range(MANY)),
        return_exceptions=True,
    )

    refused = [result for result in results if not isinstance(result, tuple)]
    assert len(refused) == MANY - 1
    for refusal in refused:
        assert isinstance(refusal, PaymentInProgress | InvalidPaymentTransition)
    await once_only(stall, payment)


async def test_a_confirm_and_its_webhooks_are_one_charge(stall: Stall) -> None:
    payments = [await stall.open() for _ in range(10)]
    attempts = [unkeyed() for _ in payments]

    for payment, attempt in zip(payments, attempts, strict=True):
        await gather(
            stall.confirm(payment, attempt=attempt),
            *(stall.send(attempt.id, Succeeded("ch_1")) for _ in range(3)),
        )
    await stall.sweep()

    assert await stall.charged() == await stall.posting_count() == len(payments)
    assert await stall.event_types() == ["payment_captured"] * len(payments)


async def test_many_reconcilers_settle_once(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(), "sandbox_timeout_after")
    stall.clock.turn(16)

    await gather(*(stall.sweep() for _ in range(5)))

    await once_only(stall, payment)


async def test_the_reconciler_and_a_retry_settle_once(stall: Stall) -> None:
    attempt = unkeyed()
    payment = await stall.confirm(await stall.open(), "sandbox_timeout_after", attempt)
    stall.clock.turn(16)

    await gather(
        stall.sweep(),
        *(stall.confirm(payment, attempt=attempt) for _ in range(5)),
        stall.send(attempt.id, Succeeded("ch_1")),
    )

    await once_only(stall, payment)


async def test_a_payment_is_paid_or_cancelled_never_both(stall: Stall) -> None:
    for _ in range(10):
        payment = await stall.open()
        before = await stall.charged()

        await gather(
            stall.confirm(payment),
            stall.payments.cancel(NEIGHBOUR, payment.payment_id),
            return_exceptions=True,
        )

        ended = (await stall.now(payment)).status
        assert ended in {PaymentStatus.CAPTURED, PaymentStatus.CANCELLED}
        assert await stall.charged() - before == (ended is PaymentStatus.CAPTURED)


async def test_a_payment_is_paid_or_expired_never_both(stall: Stall) -> None:
    for _ in range(10):
        soon = stall.clock.now + timedelta(microseconds=20)
        payment = await stall.open(expires_at=soon)
        before = await stall.charged()

        await gather(stall.confirm(payment), stall.sweep(), return_exceptions=True)
        stall.clock.turn(1)
        await stall.sweep()

        ended = (await stall.now(payment)).status
        assert ended in {PaymentStatus.CAPTURED, PaymentStatus.EXPIRED}
        assert await stall.charged() - before == (ended is PaymentStatus.CAPTURED)


async def test_many_refunds_never_exceed_what_was_captured(stall: Stall) -> None:
    payment = await stall.paid(1000)

    results = await gather(
        *(stall.refund(payment, 100) for _ in range(MANY)), return_exceptions=True
    )

    assert sum(isinstance(result, Refund) for result in results) == 10
    assert sum(isinstance(result, RefundExceedsCaptured) for result in results) == 10
    assert (await stall.now(payment)).refunded.amount == 1000
    assert [charge.refunded for charge in await stall.book.charges()] == [1000]
    assert await stall.posting_count() == 11


async def test_one_refund_many_times_is_one_refund(stall: Stall) -> None:
    payment, refund_id = await stall.paid(1000), new_id()

    results = await gather(*(stall.refund(payment, 100, refund_id) for _ in range(MANY)))

    assert {refund.refund_id for refund in results} == {refund_id}
    assert [charge.refunded for charge in await stall.book.charges()] == [100]
    assert await stall.posting_count() == 2


async def test_opening_and_cancelling_at_once_ends_cancelled(stall: Stall) -> None:
    for _ in range(10):
        payment_id = new_id()

        payment, _ = await gather(
            stall.open(payment_id=payment_id), stall.payments.cancel(NEIGHBOUR, payment_id)
        )

        assert (await stall.now(payment)).status is PaymentStatus.CANCELLED


async def once_only(stall: Stall, payment: Payment) -> None:
    assert (await stall.now(payment)).status is PaymentStatus.CAPTURED
    assert await stall.charged() == 1
    assert await stall.posting_count() == 1
    assert await stall.event_types() == ["payment_captured"]
