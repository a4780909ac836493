"""The domain rules of payments: transitions, outcomes, ledger."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from markethall.payments.contract import (
    InvalidPaymentTransition,
    PaymentCaptured,
    PaymentFailed,
    PaymentInProgress,
    PaymentStatus,
)
from markethall.payments.contract.api import RedirectAction
from markethall.payments.contract.statuses import OperationKind, OperationStatus, PostingKind
from markethall.payments.domain.ledger import Posting, postings_of
from markethall.payments.domain.operation import ActionRequired, Failed, Operation, Succeeded
from markethall.payments.domain.outcomes import settle_operation
from markethall.payments.domain.payment import Payment
from markethall.payments.domain.payment_transitions import TRANSITIONS, PaymentCommand
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money

ACTION = RedirectAction(url="https://sandbox.example/1")
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

# a copy of the transition table, so that the table in the code does not change unnoticed
ALLOWED = {
    ("created", "confirm", "processing"),
    ("created", "cancel", "cancelled"),
    ("created", "expire", "expired"),
    ("requires_action", "confirm", "processing"),
    ("requires_action", "cancel", "cancelled"),
    ("requires_action", "expire", "expired"),
    ("failed", "confirm", "processing"),
    ("failed", "cancel", "cancelled"),
    ("failed", "expire", "expired"),
    ("processing", "authorize", "authorized"),
    ("processing", "capture", "captured"),
    ("processing", "fail", "failed"),
    ("processing", "require_action", "requires_action"),
    ("processing", "mark_unknown", "unknown"),
    ("unknown", "authorize", "authorized"),
    ("unknown", "capture", "captured"),
    ("unknown", "fail", "failed"),
    ("unknown", "require_action", "requires_action"),
    ("authorized", "capture", "captured"),
    ("authorized", "void", "voided"),
    ("authorized", "expire", "expired"),
    ("authorized", "capture_part", "authorized"),
    ("authorized", "release", "captured"),
    ("voided", "capture_late", "captured"),
    ("requires_action", "authorize_late", "authorized"),
    ("failed", "authorize_late", "authorized"),
    ("cancelled", "authorize_late", "authorized"),
    ("expired", "authorize_late", "authorized"),
    ("requires_action", "capture_late", "captured"),
    ("failed", "capture_late", "captured"),
    ("cancelled", "capture_late", "captured"),
    ("expired", "capture_late", "captured"),
}
NOT_SHOWN = {"capture_late", "authorize_late", "capture_part", "release"}


def payment(status: PaymentStatus = PaymentStatus.CREATED, amount: int = 1000) -> Payment:
    return Payment(
        payment_id=new_id(),
        order_id=new_id(),
        user_id=new_id(),
        currency="EUR",
        amount=amount,
        expires_at=NOW + timedelta(minutes=15),
        created_at=NOW,
        provider="sandbox",
        status=status,
    )


def charge(of: Payment) -> Operation:
    return Operation(
        operation_id=new_id(),
        payment_id=of.payment_id,
        kind=OperationKind.CHARGE,
        amount=of.amount,
        currency=of.currency,
        method="sandbox_ok",
        created_at=NOW,
        due_at=NOW,
        provider="sandbox",
    )


def test_transition_table_is_documented() -> None:
    table = {
        (status.value, command.value, to.value)
        for status, row in TRANSITIONS.items()
        for command, to in row.items()
    }

    assert table == ALLOWED
    assert set(TRANSITIONS) == set(PaymentStatus)


@pytest.mark.parametrize(("status", "command"), list(product(PaymentStatus, PaymentCommand)))
def test_undefined_transition_is_rejected(status: PaymentStatus, command: PaymentCommand) -> None:
    allowed = {name for at, name, _ in ALLOWED if at == status}
    due = payment(status)
    commands: dict[PaymentCommand, Callable[[], object]] = {
        PaymentCommand.CONFIRM: lambda: due.confirm(NOW, "sandbox"),
        PaymentCommand.CAPTURE: lambda: due.capture(new_id()),
        PaymentCommand.FAIL: lambda: due.fail("card_declined"),
        PaymentCommand.REQUIRE_ACTION: lambda: due.require_action(ACTION),
        PaymentCommand.CANCEL: due.cancel,
        PaymentCommand.EXPIRE: due.expire,
        PaymentCommand.AUTHORIZE: lambda: due.authorize(new_id(), NOW),
    }
    deciding = status in {PaymentStatus.PROCESSING, PaymentStatus.UNKNOWN}
    ended = status in {PaymentStatus.CANCELLED, PaymentStatus.EXPIRED, PaymentStatus.VOIDED}

    if command not in commands or command in allowed:
        return
    if command is PaymentCommand.CANCEL and ended:
        assert due.cancel() is False
    elif deciding and command in {PaymentCommand.CONFIRM, PaymentCommand.CANCEL}:
        with pytest.raises(PaymentInProgress):
            commands[command]()
    else:
        with pytest.raises(InvalidPaymentTransition) as error:
            commands[command]()
        # the error does not list commands that only the provider can cause
        shown = sorted(allowed - NOT_SHOWN)
        assert error.value.details == {"status": status.value, "allowed": shown}
    assert (due.status, due.version) == (status, 1)


def test_every_change_increments_version() -> None:
    due = payment()

    due.confirm(NOW, "sandbox")
    due.fail("card_declined")
    due.confirm(NOW, "sandbox")
    due.capture(new_id())

    assert due.version == 5
    assert due.failure_code is None


@pytest.mark.parametrize("days", [89, 90, 91, 1000])
def test_payment_lives_90_days_at_most(days: int) -> None:
    by_date, by_lifetime = payment(PaymentStatus.PROCESSING), payment(PaymentStatus.PROCESSING)

    settle_operation(
        by_date,
        charge(by_date),
        ActionRequired(ACTION, expires_at=NOW + timedelta(days=days)),
        NOW + timedelta(days=1),
    )
    settle_operation(
        by_lifetime,
        charge(by_lifetime),
        ActionRequired(ACTION, lifetime=timedelta(days=days)),
        NOW + timedelta(days=1),
    )

    assert by_date.expires_at == by_lifetime.expires_at == NOW + timedelta(days=min(days, 90))


def test_expired_payment_cannot_be_confirmed() -> None:
    due = payment()

    with pytest.raises(InvalidPaymentTransition) as error:
        due.confirm(due.expires_at, "sandbox")

    assert error.value.details == {"status": "expired", "allowed": []}


def test_succeeded_charge_captures_full_amount() -> None:
    due = payment(PaymentStatus.PROCESSING)
    operation = charge(due)

    settled = settle_operation(due, operation, Succeeded("ch_1"), NOW)

    assert due.captured == due.authorized == 1000
    assert due.charge_id == operation.operation_id
    assert operation.status is OperationStatus.SUCCEEDED
    assert isinstance(settled, PaymentCaptured)
    assert [posting.kind for posting in postings_of(operation)] == [PostingKind.CAPTURE]


def test_failed_charge_has_reason() -> None:
    due = payment(PaymentStatus.PROCESSING)
    operation = charge(due)

    settled = settle_operation(due, operation, Failed("card_declined"), NOW)

    assert (due.status, due.failure_code) == (PaymentStatus.FAILED, "card_declined")
    assert operation.failure_code == "card_declined"
    assert isinstance(settled, PaymentFailed)
    assert postings_of(operation) == ()


def test_required_action_ends_charge_and_starts_another() -> None:
    due = payment(PaymentStatus.PROCESSING)
    operation = charge(due)

    settle_operation(due, operation, ActionRequired(ACTION), NOW)

    assert due.next_action == ACTION
    assert not operation.is_open
    due.confirm(NOW, "sandbox")
    assert due.next_action is None


def test_zero_amount_payment_has_no_posting() -> None:
    due = payment(PaymentStatus.PROCESSING, amount=0)
    operation = charge(due)

    settle_operation(due, operation, Succeeded("ch_1"), NOW)

    assert due.status is PaymentStatus.CAPTURED
    assert postings_of(operation) == ()


def test_a_refund_reserves_its_amount_until_it_is_settled() -> None:
    due = payment(PaymentStatus.CAPTURED)
    due.captured = 1000

    amount = due.reserve_refund(Money(amount=300, currency="EUR"))

    assert (amount, due.refundable, due.refunded) == (300, 700, 0)
    due.fail_refund(300)
    assert due.refundable == 1000


def test_a_refund_posts_the_reverse_of_the_capture() -> None:
    due = payment(PaymentStatus.CAPTURED)
    operation = charge(due)

    operation.succeed("reference", NOW)

    (capture,) = postings_of(operation)
    (refund,) = postings_of(replace(operation, kind=OperationKind.REFUND))

    assert capture.entries == (("provider:sandbox", 1000), ("customers:payments", -1000))
    assert refund.entries == (("provider:sandbox", -1000), ("customers:payments", 1000))


@pytest.mark.parametrize("entries", [(), (("a", 1),), (("a", 2), ("b", -1))])
def test_posting_with_another_sum_than_zero_is_not_balanced(
    entries: tuple[tuple[str, int], ...],
) -> None:
    posting = Posting(new_id(), new_id(), new_id(), PostingKind.CAPTURE, "EUR", entries, NOW)

    assert not posting.is_balanced
