"""The contract suite of `Payments`. It runs on each storage, in process and over HTTP."""

from datetime import timedelta

import pytest

from markethall.payments.contract import (
    ActivatePayments,
    InvalidPaymentTransition,
    PaymentInProgress,
    PaymentStatus,
    RefundExceedsCaptured,
    RefundStatus,
)
from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.errors import OperationIdTaken, OrderHasPayment, PaymentNotFound
from markethall.payments.ports import PaymentGatewayTimeout
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import CurrencyMismatch, Money
from tests.payments.conftest import ORDERS_CONTEXT, Killed, PaymentsApp


async def test_opened_payment_has_full_amount_due(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open(1999)

    assert payment.status is PaymentStatus.CREATED
    assert payment.amount == Money(amount=1999, currency="EUR")
    assert payment.captured == payment.refunded == Money.zero("EUR")
    assert payment.expires_at - payment.created_at < timedelta(minutes=15)
    assert await payments_app.current(payment) == payment


async def test_open_is_idempotent(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open(1999)
    paid = await payments_app.confirm(payment)

    again = await payments_app.open(5, payment_id=payment.payment_id, order_id=payment.order_id)

    assert again == paid


async def test_payment_is_not_confirmed_before_its_order_is_committed(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.open(activate=False)

    with pytest.raises(PaymentNotFound):
        await payments_app.confirm(payment)
    (activated,) = await payments_app.activate(payment)
    paid = await payments_app.confirm(payment)

    assert activated == payment
    assert paid.status is PaymentStatus.CAPTURED
    assert await payments_app.charged() == 1


async def test_activate_returns_existing_payments_as_they_stand(payments_app: PaymentsApp) -> None:
    created, paid, cancelled_id = await payments_app.open(), await payments_app.paid(), new_id()
    await payments_app.payments.cancel(ORDERS_CONTEXT, cancelled_id)
    ids = (paid.payment_id, new_id(), created.payment_id, cancelled_id)

    for _ in range(2):
        answer = await payments_app.payments.activate(
            ORDERS_CONTEXT, ActivatePayments(payment_ids=ids)
        )

        assert {payment.payment_id: PaymentView(**dict(payment)) for payment in answer.items} == {
            created.payment_id: created,
            paid.payment_id: paid,
        }


async def test_an_order_has_one_payment(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()

    with pytest.raises(OrderHasPayment) as error:
        await payments_app.open(order_id=payment.order_id)

    assert error.value.details == {"order_id": str(payment.order_id)}


async def test_payments_of_an_order_may_replace_each_other(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open(2000)
    await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    # two attempts may replace the payment, if a crash prevented the activation of the first one
    replacements = [
        await payments_app.open(amount, order_id=payment.order_id, replaces=payment.payment_id)
        for amount in (1000, 3000)
    ]

    assert [one.status for one in replacements] == [PaymentStatus.CREATED] * 2
    assert [await payments_app.current(one) for one in replacements] == replacements


async def test_additional_payments_stand_beside_the_first_one(payments_app: PaymentsApp) -> None:
    first = await payments_app.open(2000)

    more = [
        await payments_app.open(amount, order_id=first.order_id, is_additional=True)
        for amount in (500, 700)
    ]
    for payment in (first, *more):
        await payments_app.confirm(payment)

    current = [await payments_app.current(payment) for payment in (first, *more)]
    assert [one.captured.amount for one in current] == [2000, 500, 700]
    with pytest.raises(OrderHasPayment):
        await payments_app.open(order_id=first.order_id)


async def test_open_after_cancel_stays_cancelled(payments_app: PaymentsApp) -> None:
    payment_id = new_id()

    await payments_app.payments.cancel(ORDERS_CONTEXT, payment_id)
    await payments_app.payments.cancel(ORDERS_CONTEXT, payment_id)
    payment = await payments_app.open(1999, payment_id=payment_id)

    assert payment.status is PaymentStatus.CANCELLED
    assert payment.amount.amount == 1999
    assert await payments_app.current(payment) == payment
    with pytest.raises(InvalidPaymentTransition):
        await payments_app.confirm(payment)


async def test_tombstone_is_not_found(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()
    payment_id = new_id()

    await payments_app.payments.cancel(ORDERS_CONTEXT, payment_id)

    assert await payments_app.payment_api.count() == 1
    with pytest.raises(PaymentNotFound):
        await payments_app.current(payment.model_copy(update={"payment_id": payment_id}))


async def test_a_cancelled_payment_is_never_charged(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()

    await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)
    await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    with pytest.raises(InvalidPaymentTransition) as error:
        await payments_app.confirm(payment)
    assert error.value.details == {"status": "cancelled", "allowed": []}
    assert await payments_app.charged() == 0


async def test_a_failed_payment_can_be_cancelled(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_declined")

    await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    assert (await payments_app.current(payment)).status is PaymentStatus.CANCELLED


async def test_captured_payment_cannot_be_cancelled(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid()

    with pytest.raises(InvalidPaymentTransition) as error:
        await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    assert error.value.details == {"status": "captured", "allowed": []}


async def test_payment_in_progress_cannot_be_cancelled(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()
    payments_app.gateway.before = Killed()
    with pytest.raises(Killed):
        await payments_app.confirm(payment)

    with pytest.raises(PaymentInProgress) as error:
        await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    assert error.value.retry_after == 1


async def test_partial_refund(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1000)

    refund = await payments_app.refund(payment, 300)

    assert refund.status is RefundStatus.SUCCEEDED
    assert refund.order_id == payment.order_id
    assert (await payments_app.current(payment)).refunded.amount == 300
    assert [charge.refunded for charge in await payments_app.sandbox_ledger.list_charges()] == [300]
    assert await payments_app.event_types() == ["payment_captured", "payment_refunded"]
    assert await payments_app.posting_count() == 2


async def test_refund_without_amount_refunds_remainder(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1000)
    await payments_app.refund(payment, 300)

    refund = await payments_app.refund(payment)

    assert refund.amount.amount == 700
    assert (await payments_app.current(payment)).refunded == payment.captured


async def test_refund_is_idempotent(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1000)
    first = await payments_app.refund(payment, 300)

    again = await payments_app.refund(payment, 300, first.refund_id)

    assert again == first
    assert (await payments_app.current(payment)).refunded.amount == 300
    assert await payments_app.posting_count() == 2


async def test_refund_never_exceeds_captured_amount(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1000)
    await payments_app.refund(payment, 800)

    with pytest.raises(RefundExceedsCaptured) as error:
        await payments_app.refund(payment, 201)

    assert error.value.details == {
        "requested": {"amount": 201, "currency": "EUR"},
        "refundable": {"amount": 200, "currency": "EUR"},
    }


async def test_full_refund_leaves_nothing_refundable(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid(1000)
    await payments_app.refund(payment)

    with pytest.raises(RefundExceedsCaptured):
        await payments_app.refund(payment)


@pytest.mark.parametrize("amount", [0, -1])
async def test_non_positive_refund_is_rejected(payments_app: PaymentsApp, amount: int) -> None:
    payment = await payments_app.paid(1000)

    with pytest.raises(ValidationFailed):
        await payments_app.refund(payment, amount)


async def test_a_refund_is_in_the_currency_of_its_payment(payments_app: PaymentsApp) -> None:
    payment = await payments_app.confirm(await payments_app.open(1000, "JPY"))

    with pytest.raises(CurrencyMismatch):
        await payments_app.refund(payment, 300)


async def test_an_unpaid_payment_has_no_refunds(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()

    with pytest.raises(InvalidPaymentTransition):
        await payments_app.refund(payment, 1)
    with pytest.raises(PaymentNotFound):
        await payments_app.refund(payment.model_copy(update={"payment_id": new_id()}), 1)


async def test_refund_id_of_other_operation_is_rejected(payments_app: PaymentsApp) -> None:
    first, second = await payments_app.paid(1000), await payments_app.paid(1000)
    refund = await payments_app.refund(first, 300)

    with pytest.raises(OperationIdTaken):
        await payments_app.refund(second, 300, refund.refund_id)


async def test_refund_without_provider_response_is_unknown_and_reserved(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.paid(1000)
    payments_app.gateway.after = PaymentGatewayTimeout()

    refund = await payments_app.refund(payment, 600)

    assert refund.status is RefundStatus.UNKNOWN
    assert (await payments_app.current(payment)).refunded.amount == 0
    with pytest.raises(RefundExceedsCaptured):
        await payments_app.refund(payment, 401)


@pytest.mark.parametrize("where", ["before", "after"])
async def test_unknown_refund_is_reconciled(payments_app: PaymentsApp, where: str) -> None:
    payment = await payments_app.paid(1000)
    setattr(payments_app.gateway, where, PaymentGatewayTimeout())
    refund = await payments_app.refund(payment, 600)

    await payments_app.reconcile()

    assert (
        await payments_app.refund(payment, 600, refund.refund_id)
    ).status is RefundStatus.SUCCEEDED
    assert (await payments_app.current(payment)).refunded.amount == 600
    assert [charge.refunded for charge in await payments_app.sandbox_ledger.list_charges()] == [600]
    assert await payments_app.posting_count() == 2


@pytest.mark.parametrize("where", ["before", "after"])
async def test_crashed_refund_resumes_on_retry(payments_app: PaymentsApp, where: str) -> None:
    payment = await payments_app.paid(1000)
    refund_id = new_id()
    setattr(payments_app.gateway, where, Killed())
    with pytest.raises(Killed):
        await payments_app.refund(payment, 600, refund_id)

    refund = await payments_app.refund(payment, 600, refund_id)

    assert refund.status is RefundStatus.SUCCEEDED
    assert [charge.refunded for charge in await payments_app.sandbox_ledger.list_charges()] == [600]
    assert await payments_app.posting_count() == 2
