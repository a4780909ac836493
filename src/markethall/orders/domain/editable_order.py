"""An order whose lines can be edited: at once, or when an additional payment is captured."""

from dataclasses import replace
from datetime import datetime

from markethall.orders.contract import EditStatus, OrderPaymentStatus
from markethall.orders.domain.additional_payment import AdditionalPayment
from markethall.orders.domain.order_command import OrderCommand
from markethall.orders.domain.order_edit import OrderEdit
from markethall.orders.domain.recorded_order import RecordedOrder
from markethall.orders.domain.timeline import AuditInfo
from markethall.orders.domain.transitions import allowed_commands


class EditableOrder(RecordedOrder):
    def check_editable(self, now: datetime) -> None:
        """Raises InvalidTransition, EditOpen if the lines cannot be edited."""
        if OrderCommand.EDIT not in allowed_commands(self, now):
            self._reject(now)

    def edit(self, edit: OrderEdit, audit: AuditInfo) -> None:
        """Replace the lines. The caller reserves the units and replaces the payment."""
        self._transition(OrderCommand.EDIT, audit.at)
        edit.apply(self)
        if edit.payment:
            self.payment_status = OrderPaymentStatus.NONE
        self._record("edited", audit)

    def open_for_payment(self, payment: AdditionalPayment, audit: AuditInfo) -> None:
        """Store an edit that takes effect when its additional payment is captured."""
        self._transition(OrderCommand.EDIT, audit.at)
        self.additional_payments = (*self.additional_payments, payment)
        self._record("edit_opened", audit)

    def apply_open_edit(self, audit: AuditInfo) -> None:
        """Replace the lines, because the additional payment of the open edit is captured."""
        payment = self.open_edit
        if payment and payment.edit:
            payment.edit.apply(self)
            self._replace_additional(replace(payment, status=EditStatus.APPLIED, edit=None))
            if self.payment_status is OrderPaymentStatus.REFUNDED:
                # an earlier edit has refunded all; the new payment is not refunded
                self.payment_status = OrderPaymentStatus.PARTIALLY_REFUNDED
            self._record("edited", audit)

    def drop_open_edit(self, audit: AuditInfo) -> None:
        """End the open edit without applying it."""
        if self._end_open_edit():
            self._record("edit_dropped", audit)

    def extend_open_edit(self, expires_at: datetime, audit: AuditInfo) -> None:
        """Move the deadline of the open edit to the later deadline of its payment."""
        if payment := self.open_edit:
            self._replace_additional(replace(payment, expires_at=expires_at))
            self._record("edit_deadline_extended", audit)

    def _end_open_edit(self) -> bool:
        payment = self.open_edit
        if payment is None:
            return False
        self._replace_additional(replace(payment, status=EditStatus.DROPPED, edit=None))
        return True

    def _replace_additional(self, payment: AdditionalPayment) -> None:
        self.additional_payments = tuple(
            payment if known.edit_id == payment.edit_id else known
            for known in self.additional_payments
        )
