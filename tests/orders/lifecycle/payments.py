"""Payments with all outcomes, in time and late."""

from datetime import timedelta
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from markethall.payments.contract import PaymentStatus
from tests.orders.lifecycle.machine import CHOICES, ShopMachine
from tests.orders.lifecycle.model import ModelOrder

TRANSFER_LIFETIME: Final = timedelta(days=1)


def is_processing(order: ModelOrder) -> bool:
    return order.payment == "processing"


def is_payable(order: ModelOrder) -> bool:
    return order.is_payable


def can_be_paid_late(order: ModelOrder) -> bool:
    return order.status in {"expired", "cancelled"} and order.payment == "cancelled"


def has_unused_authorization(order: ModelOrder) -> bool:
    return (
        order.status == "processing"
        and order.payment == "authorized"
        and order.nothing_shipped
        and not order.captured_parts
    )


class PaymentRules(ShopMachine):
    @precondition(lambda self: self.has(is_payable))
    @rule(choice=CHOICES, is_authorized=st.booleans())
    def pay(self, choice: int, is_authorized: bool) -> None:
        placed = self.pick(choice, is_payable)
        if self._can_confirm(placed.expected):
            self.pay_order(placed, is_authorized)

    def _can_confirm(self, order: ModelOrder) -> bool:
        return order.is_payable and order.expires_at > self.app.clock()

    @precondition(lambda self: self.has(is_payable))
    @rule(choice=CHOICES)
    def decline(self, choice: int) -> None:
        placed = self.pick(choice, is_payable)
        if self._can_confirm(placed.expected):
            self.app.fake_payments.decline(placed.order.payment.payment_id)
            placed.expected.payment = "failed"
            self.settle()

    @precondition(lambda self: self.has(is_payable))
    @rule(choice=CHOICES)
    def choose_transfer(self, choice: int) -> None:
        """Choose a payment method that may take a day."""
        placed = self.pick(choice, is_payable)
        if self._can_confirm(placed.expected):
            until = self.app.clock() + TRANSFER_LIFETIME
            self.app.fake_payments.change_status(
                placed.order.payment.payment_id, PaymentStatus.REQUIRES_ACTION, expires_at=until
            )
            placed.expected.payment = "requires_action"
            placed.expected.expires_at = until
            self.settle()

    @precondition(lambda self: self.has(is_payable))
    @rule(choice=CHOICES)
    def confirm_without_answer(self, choice: int) -> None:
        """Confirm the payment. The provider answers later, in the rule `answer`."""
        placed = self.pick(choice, is_payable)
        if self._can_confirm(placed.expected):
            self.app.fake_payments.start_processing(placed.order.payment.payment_id)
            placed.expected.payment = "processing"

    @precondition(lambda self: self.has(is_processing))
    @rule(choice=CHOICES, outcome=st.sampled_from(["captured", "authorized", "failed"]))
    def answer(self, choice: int, outcome: str) -> None:
        placed = self.pick(choice, is_processing)
        expected = placed.expected
        if not is_processing(expected):
            return
        if outcome == "failed":
            self.app.fake_payments.decline(placed.order.payment.payment_id)
            expected.payment = "cancelled" if expected.status == "cancelled" else "failed"
        else:
            self.charge(placed, outcome == "authorized")
            self._apply_answer(expected, outcome)
        self.settle()

    def _apply_answer(self, expected: ModelOrder, outcome: str) -> None:
        if expected.status == "cancelled":
            expected.payment = "captured" if outcome == "captured" else "voided"
        else:
            self.model.pay(expected, outcome)

    @precondition(lambda self: self.has(can_be_paid_late))
    @rule(choice=CHOICES, is_authorized=st.booleans())
    def pay_late(self, choice: int, is_authorized: bool) -> None:
        """Pay an order that has ended, as if the provider had not received the cancellation."""
        placed = self.pick(choice, can_be_paid_late)
        if can_be_paid_late(placed.expected):
            self.app.fake_payments.reopen(placed.order.payment.payment_id)
            self.charge(placed, is_authorized)
            self.model.pay_late(placed.expected, "authorized" if is_authorized else "captured")
            self.settle()

    @precondition(lambda self: self.has(has_unused_authorization))
    @rule(choice=CHOICES)
    def end_authorization(self, choice: int) -> None:
        """Let the authorization expire, or let staff void it. The order is then cancelled."""
        placed = self.pick(choice, has_unused_authorization)
        if has_unused_authorization(placed.expected):
            payment_id = placed.order.payment.payment_id
            self.app.fake_payments.change_status(payment_id, PaymentStatus.VOIDED)
            self.model.end(placed.expected, "cancelled")
            self.settle()
