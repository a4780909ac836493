"""The domain rules of authorizations, captures and voids."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentCaptured,
    PaymentInProgress,
    PaymentPartiallyCaptured,
    PaymentStatus,
    PaymentStatusChanged,
    RefundExceedsCaptured,
)
from markethall.payments.contract.errors import CaptureExceedsAuthorized
from markethall.payments.contract.statuses import OperationKind, PostingKind
from markethall.payments.domain.ledger import postings_of
from markethall.payments.domain.operation import Failed, Operation, Outcome, Succeeded
from markethall.payments.domain.outcomes import correct_operation, settle_operation
from markethall.payments.domain.payment import Payment
from markethall.shared.kernel.errors import ValidationFailed
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import CurrencyMismatch, Money
from markethall.shared.messaging.events import Event

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
END = NOW + timedelta(days=7)
SUCCESS = Succeeded("cp_1")


def authorized(amount: int = 1000) -> Payment:
    payment = Payment(
        payment_id=new_id(),
        order_id=new_id(),
        user_id=new_id(),
        currency="EUR",
        amount=amount,
        expires_at=NOW + timedelta(minutes=15),
        created_at=NOW,
        provider="sandbox",
        status=PaymentStatus.PROCESSING,
    )
    payment.authorize(new_id(), END)
    return payment


def eur(amount: int) -> Money:
    return Money(amount=amount, currency="EUR")


def change(payment: Payment, kind: OperationKind, amount: int, *, is_final: bool) -> Operation:
    return Operation(
        operation_id=payment.open_change_id or new_id(),
        payment_id=payment.payment_id,
        kind=kind,
        amount=amount,
        currency="EUR",
        created_at=NOW,
        due_at=NOW,
        provider="sandbox",
        is_final=is_final,
    )


def capture(
    payment: Payment,
    amount: int | None = None,
    outcome: Outcome | None = SUCCESS,
    *,
    is_final: bool = False,
) -> tuple[Operation, Event | None]:
    requested = None if amount is None else eur(amount)
    taken = payment.start_capture(new_id(), requested, NOW)
    operation = change(payment, OperationKind.CAPTURE, taken, is_final=is_final)
    return operation, settle_operation(payment, operation, outcome, NOW)


def posting_kinds(operation: Operation) -> list[PostingKind]:
    return [posting.kind for posting in postings_of(operation)]


def void(payment: Payment, outcome: Outcome | None = SUCCESS) -> tuple[Operation, Event | None]:
    amount = payment.start_void(new_id())
    operation = change(payment, OperationKind.VOID, amount, is_final=False)
    return operation, settle_operation(payment, operation, outcome, NOW)


def test_authorization_takes_no_money_and_has_an_end_of_its_own() -> None:
    payment = authorized()

    assert (payment.status, payment.authorized, payment.captured) == ("authorized", 1000, 0)
    assert (payment.capturable, payment.expires_at) == (1000, END)


def test_capture_without_amount_takes_all() -> None:
    payment = authorized()

    operation, event = capture(payment)

    assert (payment.status, payment.captured, payment.authorized) == ("captured", 1000, 1000)
    assert isinstance(event, PaymentCaptured)
    assert posting_kinds(operation) == [PostingKind.CAPTURE]


def test_payment_stays_authorized_until_its_last_capture() -> None:
    payment = authorized()

    first_capture, first = capture(payment, 600)
    after_first = (payment.status, payment.captured, payment.capturable)
    last_capture, last = capture(payment, 400)

    assert after_first == ("authorized", 600, 400)
    assert isinstance(first, PaymentPartiallyCaptured)
    assert posting_kinds(first_capture) == posting_kinds(last_capture) == [PostingKind.CAPTURE]
    assert (payment.status, payment.captured) == ("captured", 1000)
    assert isinstance(last, PaymentCaptured)
    assert last.amount == eur(1000)


def test_final_capture_releases_the_rest() -> None:
    payment = authorized()

    capture(payment, 600, is_final=True)

    assert (payment.status, payment.captured, payment.authorized) == ("captured", 600, 600)
    with pytest.raises(InvalidPaymentTransition):
        payment.start_capture(new_id(), eur(1), NOW)


def test_capture_never_exceeds_what_is_authorized() -> None:
    payment = authorized()
    capture(payment, 600)

    with pytest.raises(CaptureExceedsAuthorized) as error:
        payment.start_capture(new_id(), eur(401), NOW)

    assert error.value.details["capturable"] == {"amount": 400, "currency": "EUR"}


@pytest.mark.parametrize(
    ("amount", "error"),
    [(eur(0), ValidationFailed), (Money(amount=1, currency="USD"), CurrencyMismatch)],
)
def test_impossible_amount_is_rejected(amount: Money, error: type[Exception]) -> None:
    payment = authorized()

    with pytest.raises(error):
        payment.start_capture(new_id(), amount, NOW)

    assert payment.open_change_id is None


def test_overdue_authorization_is_not_captured() -> None:
    payment = authorized()

    with pytest.raises(InvalidPaymentTransition) as error:
        payment.start_capture(new_id(), None, END)

    assert error.value.details["status"] == "expired"


def test_one_capture_or_void_at_a_time() -> None:
    payment = authorized()
    capture(payment, 600, None)

    with pytest.raises(PaymentInProgress):
        payment.start_capture(new_id(), eur(1), NOW)
    with pytest.raises(PaymentInProgress):
        payment.start_void(new_id())
    with pytest.raises(PaymentInProgress):
        payment.expire()
    with pytest.raises(PaymentInProgress):
        payment.cancel()

    assert payment.status is PaymentStatus.AUTHORIZED


def test_rejected_capture_leaves_the_authorization() -> None:
    payment = authorized()

    operation, event = capture(payment, 600, Failed("expired_card"))

    assert event is None
    assert (payment.status, payment.capturable) == ("authorized", 1000)
    assert payment.failure_code == operation.failure_code == "expired_card"
    capture(payment, 600)
    assert payment.failure_code is None


def test_void_ends_the_authorization() -> None:
    payment = authorized()

    operation, event = void(payment)

    assert operation.amount == 1000
    assert (payment.status, payment.authorized) == ("voided", 0)
    assert isinstance(event, PaymentStatusChanged)
    assert posting_kinds(operation) == []


@pytest.mark.parametrize("end", ["void", "expire"])
def test_end_after_a_capture_keeps_what_is_captured(end: str) -> None:
    payment = authorized()
    capture(payment, 600)

    if end == "void":
        void(payment)
    else:
        payment.expire()

    assert (payment.status, payment.captured, payment.authorized) == ("captured", 600, 600)


def test_refund_counts_against_what_is_captured() -> None:
    payment = authorized()
    with pytest.raises(InvalidPaymentTransition):
        payment.reserve_refund(eur(1))
    capture(payment, 600)

    payment.reserve_refund(eur(500))

    with pytest.raises(RefundExceedsCaptured):
        payment.reserve_refund(eur(101))
    capture(payment, 400)
    assert payment.refundable == 500


@pytest.mark.parametrize(
    ("end", "status"), [(None, "authorized"), ("void", "captured"), ("expire", "captured")]
)
def test_capture_that_succeeded_after_all_is_recorded(end: str | None, status: str) -> None:
    payment = authorized()
    operation, _ = capture(payment, 600, Failed("no_answer"))
    if end == "void":
        void(payment)
    if end == "expire":
        payment.expire()

    event = correct_operation(payment, operation, SUCCESS, NOW)

    assert event is not None
    assert posting_kinds(operation) == [PostingKind.CAPTURE]
    assert (payment.status, payment.captured) == (status, 600)


def test_capture_is_not_corrected_above_the_amount() -> None:
    payment = authorized()
    operation, _ = capture(payment, 600, Failed("no_answer"))
    capture(payment)

    assert correct_operation(payment, operation, SUCCESS, NOW) is None

    assert payment.captured == 1000


def test_late_authorization_is_recorded() -> None:
    payment = replace(authorized(), status=PaymentStatus.CANCELLED, authorized=0, charge_id=None)
    operation = change(payment, OperationKind.AUTHORIZE, 1000, is_final=False)
    operation.fail("action_required", NOW)

    event = correct_operation(payment, operation, Succeeded("ch_1", END), NOW)

    assert event is not None
    assert isinstance(event, PaymentStatusChanged)
    assert (payment.status, payment.charge_id) == ("authorized", operation.operation_id)
