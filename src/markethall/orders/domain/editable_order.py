"""An order whose commands change its status and lines, and add timeline entries."""

from dataclasses import replace
from datetime import datetime
from typing import NoReturn

from markethall.orders.contract import EditOpen, EditStatus, InvalidTransition, OrderPaymentStatus
from markethall.orders.domain.order_edit import AdditionalPayment, OrderEdit
from markethall.orders.domain.order_state import AuditInfo, OrderState, TimelineEntry
from markethall.orders.domain.transitions import TRANSITIONS, OrderCommand, allowed_commands


class EditableOrder(OrderState):
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

    def _transition(self, command: OrderCommand, now: datetime) -> None:
        """Raises InvalidTransition, or EditOpen if the open edit prevents the transition."""
        for row in TRANSITIONS:
            if (row.status, row.command) == (self.status, command) and row.guard(self, now):
                self.status = row.to
                return
        self._reject(now)

    def _reject(self, now: datetime) -> NoReturn:
        if edit := self.open_edit:
            raise EditOpen(edit_id=str(edit.edit_id), payment_id=str(edit.payment_id))
        raise InvalidTransition(status=self.status.value, allowed=allowed_commands(self, now))

    def _record(self, change: str, audit: AuditInfo) -> None:
        self.version += 1
        self.updated_at = audit.at
        entry = TimelineEntry(
            version=self.version,
            change=change,
            actor=audit.actor,
            at=audit.at,
            reason=audit.reason,
            status=self.status,
            payment_status=self.payment_status,
            fulfilment_status=self.fulfilment_status,
        )
        self.pending_timeline_entries = (*self.pending_timeline_entries, entry)
