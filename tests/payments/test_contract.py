"""Every implementation of Payments keeps these promises to its neighbours."""

from datetime import timedelta

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    OperationIdTaken,
    OrderHasPayment,
    PaymentInProgress,
    PaymentNotFound,
    PaymentStatus,
    RefundExceedsCaptured,
    RefundStatus,
)
from markethall.payments.ports import GatewayTimeout
from markethall.shared.errors import Invalid
from markethall.shared.ids import new_id
from markethall.shared.money import CurrencyMismatch, Money
from tests.payments.conftest import NEIGHBOUR, Killed, Stall


async def test_an_opened_payment_owes_its_amount(stall: Stall) -> None:
    payment = await stall.open(1999)

    assert payment.status is PaymentStatus.CREATED
    assert payment.amount == Money(amount=1999, currency="EUR")
    assert payment.captured == payment.refunded == Money.zero("EUR")
    assert payment.expires_at - payment.created_at < timedelta(minutes=15)
    assert await stall.now(payment) == payment


async def test_opening_twice_gives_back_the_payment_as_it_stands(stall: Stall) -> None:
    payment = await stall.open(1999)
    paid = await stall.confirm(payment)

    again = await stall.open(5, payment_id=payment.payment_id, order_id=payment.order_id)

    assert again == paid


async def test_an_order_has_one_payment(stall: Stall) -> None:
    payment = await stall.open()

    with pytest.raises(OrderHasPayment) as refusal:
        await stall.open(order_id=payment.order_id)

    assert refusal.value.details == {"order_id": str(payment.order_id)}


async def test_an_open_after_its_cancel_stays_cancelled(stall: Stall) -> None:
    payment_id = new_id()

    await stall.payments.cancel(NEIGHBOUR, payment_id)
    await stall.payments.cancel(NEIGHBOUR, payment_id)
    payment = await stall.open(1999, payment_id=payment_id)

    assert payment.status is PaymentStatus.CANCELLED
    assert payment.amount.amount == 1999
    assert await stall.now(payment) == payment
    with pytest.raises(InvalidPaymentTransition):
        await stall.confirm(payment)


async def test_a_payment_that_was_only_cancelled_is_not_seen(stall: Stall) -> None:
    payment = await stall.open()
    payment_id = new_id()

    await stall.payments.cancel(NEIGHBOUR, payment_id)

    assert await stall.desk.count() == 1
    with pytest.raises(PaymentNotFound):
        await stall.now(payment.model_copy(update={"payment_id": payment_id}))


async def test_a_cancelled_payment_is_never_charged(stall: Stall) -> None:
    payment = await stall.open()

    await stall.payments.cancel(NEIGHBOUR, payment.payment_id)
    await stall.payments.cancel(NEIGHBOUR, payment.payment_id)

    with pytest.raises(InvalidPaymentTransition) as refusal:
        await stall.confirm(payment)
    assert refusal.value.details == {"status": "cancelled", "allowed": []}
    assert await stall.charged() == 0


async def test_a_failed_payment_can_be_cancelled(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(), "sandbox_declined")

    await stall.payments.cancel(NEIGHBOUR, payment.payment_id)

    assert (await stall.now(payment)).status is PaymentStatus.CANCELLED


async def test_money_that_was_taken_cannot_be_cancelled(stall: Stall) -> None:
    payment = await stall.paid()

    with pytest.raises(InvalidPaymentTransition) as refusal:
        await stall.payments.cancel(NEIGHBOUR, payment.payment_id)

    assert refusal.value.details == {"status": "captured", "allowed": []}


async def test_nothing_is_cancelled_while_the_provider_is_asked(stall: Stall) -> None:
    payment = await stall.open()
    stall.wire.before = Killed()
    with pytest.raises(Killed):
        await stall.confirm(payment)

    with pytest.raises(PaymentInProgress) as refusal:
        await stall.payments.cancel(NEIGHBOUR, payment.payment_id)

    assert refusal.value.retry_after == 1


async def test_a_refund_gives_back_a_part(stall: Stall) -> None:
    payment = await stall.paid(1000)

    refund = await stall.refund(payment, 300)

    assert refund.status is RefundStatus.SUCCEEDED
    assert refund.order_id == payment.order_id
    assert (await stall.now(payment)).refunded.amount == 300
    assert [charge.refunded for charge in await stall.book.charges()] == [300]
    assert await stall.event_types() == ["payment_captured", "payment_refunded"]
    assert await stall.posting_count() == 2


async def test_a_refund_without_an_amount_gives_back_the_rest(stall: Stall) -> None:
    payment = await stall.paid(1000)
    await stall.refund(payment, 300)

    refund = await stall.refund(payment)

    assert refund.amount.amount == 700
    assert (await stall.now(payment)).refunded == payment.captured


async def test_a_repeated_refund_is_the_same_refund(stall: Stall) -> None:
    payment = await stall.paid(1000)
    first = await stall.refund(payment, 300)

    again = await stall.refund(payment, 300, first.refund_id)

    assert again == first
    assert (await stall.now(payment)).refunded.amount == 300
    assert await stall.posting_count() == 2


async def test_refunds_never_exceed_what_was_captured(stall: Stall) -> None:
    payment = await stall.paid(1000)
    await stall.refund(payment, 800)

    with pytest.raises(RefundExceedsCaptured) as refusal:
        await stall.refund(payment, 201)

    assert refusal.value.details == {
        "requested": {"amount": 201, "currency": "EUR"},
        "refundable": {"amount": 200, "currency": "EUR"},
    }


async def test_nothing_is_left_after_the_last_refund(stall: Stall) -> None:
    payment = await stall.paid(1000)
    await stall.refund(payment)

    with pytest.raises(RefundExceedsCaptured):
        await stall.refund(payment)


@pytest.mark.parametrize("amount", [0, -1])
async def test_a_refund_takes_nothing_from_the_customer(stall: Stall, amount: int) -> None:
    payment = await stall.paid(1000)

    with pytest.raises(Invalid):
        await stall.refund(payment, amount)


async def test_a_refund_is_in_the_currency_of_its_payment(stall: Stall) -> None:
    payment = await stall.confirm(await stall.open(1000, "JPY"))

    with pytest.raises(CurrencyMismatch):
        await stall.refund(payment, 300)


async def test_an_unpaid_payment_has_no_refunds(stall: Stall) -> None:
    payment = await stall.open()

    with pytest.raises(InvalidPaymentTransition):
        await stall.refund(payment, 1)
    with pytest.raises(PaymentNotFound):
        await stall.refund(payment.model_copy(update={"payment_id": new_id()}), 1)


async def test_a_refund_cannot_take_the_name_of_another_operation(stall: Stall) -> None:
    first, second = await stall.paid(1000), await stall.paid(1000)
    refund = await stall.refund(first, 300)

    with pytest.raises(OperationIdTaken):
        await stall.refund(second, 300, refund.refund_id)


async def test_a_refund_without_an_answer_is_unknown_and_stays_reserved(stall: Stall) -> None:
    payment = await stall.paid(1000)
    stall.wire.after = GatewayTimeout()

    refund = await stall.refund(payment, 600)

    assert refund.status is RefundStatus.UNKNOWN
    assert (await stall.now(payment)).refunded.amount == 0
    with pytest.raises(RefundExceedsCaptured):
        await stall.refund(payment, 401)


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_refund_without_an_answer_is_driven_on(stall: Stall, where: str) -> None:
    payment = await stall.paid(1000)
    setattr(stall.wire, where, GatewayTimeout())
    refund = await stall.refund(payment, 600)

    await stall.reconcile()

    assert (await stall.refund(payment, 600, refund.refund_id)).status is RefundStatus.SUCCEEDED
    assert (await stall.now(payment)).refunded.amount == 600
    assert [charge.refunded for charge in await stall.book.charges()] == [600]
    assert await stall.posting_count() == 2


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_refund_that_died_goes_on_when_repeated(stall: Stall, where: str) -> None:
    payment = await stall.paid(1000)
    refund_id = new_id()
    setattr(stall.wire, where, Killed())
    with pytest.raises(Killed):
        await stall.refund(payment, 600, refund_id)

    refund = await stall.refund(payment, 600, refund_id)

    assert refund.status is RefundStatus.SUCCEEDED
    assert [charge.refunded for charge in await stall.book.charges()] == [600]
    assert await stall.posting_count() == 2
