"""An order, with all methods that change it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from markethall.orders.contract import (
    Address,
    InvalidTransition,
    OrderFulfilmentStatus,
    OrderPaymentStatus,
    OrderStatus,
    TooMuchToCancel,
    TooMuchToFulfil,
)
from markethall.orders.domain.editable_order import EditableOrder
from markethall.orders.domain.order_line import OrderLine
from markethall.orders.domain.order_state import ENDED_PAYMENT_STATUSES, PAYMENT_STATUSES, AuditInfo
from markethall.orders.domain.transitions import OrderCommand, allowed_commands, is_fully_delivered
from markethall.orders.returns.contract import TooMuchToReturn
from markethall.orders.totals.domain import LineShare


@dataclass
class Order(EditableOrder):
    """An order. Every change adds a timeline entry.

    A command that the status does not accept raises InvalidTransition.
    """

    def mark_placed(self, audit: AuditInfo) -> None:
        self._record("placed", audit)

    def change_owner(self, user_id: UUID, audit: AuditInfo) -> None:
        """Change the owner from the guest to the user who has claimed the guest."""
        self.user_id = user_id
        self.is_guest = False
        self._record("claimed", audit)

    def pay(self, audit: AuditInfo) -> None:
        """Mark the order as paid."""
        self._transition(OrderCommand.PAY, audit.at)
        self._record_capture()
        self._record("paid", audit)

    def authorize(self, payment_version: int, audit: AuditInfo) -> None:
        """Record that the payment is authorized. The order is treated as paid."""
        self._transition(OrderCommand.PAY, audit.at)
        self._record_authorization(payment_version)
        self._record("payment_authorized", audit)

    def capture(self, captured: int, audit: AuditInfo) -> None:
        """Record that an authorized payment is captured; `captured` is the sum of its captures."""
        self._record_capture()
        if self.refunded:
            self.payment_status = self._refunded_status(captured)
        self._record("payment_captured", audit)

    def record_partial_capture(self, audit: AuditInfo) -> None:
        self._record("payment_partially_captured", audit)

    def record_failed_capture(self, audit: AuditInfo) -> None:
        self._record("payment_capture_failed", audit)

    def reinstate(
        self, reservation_id: UUID, audit: AuditInfo, authorized_version: int | None = None
    ) -> None:
        """Reopen an expired order that the customer paid late. The stock has a new reservation.

        `authorized_version` is the version of the payment if it is only authorized.
        """
        self._transition(OrderCommand.REINSTATE, audit.at)
        self.reservation_id = reservation_id
        if authorized_version is None:
            self._record_capture()
        else:
            self._record_authorization(authorized_version)
        # API clients know this change by the word "revived"
        self._record("revived", audit)

    def record_late_payment(self, audit: AuditInfo) -> None:
        """Record the capture of a payment that is refunded, because the order cannot use it."""
        self._record_capture()
        self._record("late_payment", audit)

    def expire(self, audit: AuditInfo) -> None:
        """Expire the order. The caller must cancel its payment before."""
        self._transition(OrderCommand.EXPIRE, audit.at)
        if not self.has_payment_ended:
            self._set_payment_status("cancelled")
        self._record("expired", audit)

    def cancel(self, audit: AuditInfo) -> None:
        self._transition(OrderCommand.CANCEL, audit.at)
        self._end_open_edit()
        if self.is_captured:
            self._record_capture()
        self._record("cancelled", audit)

    def cancel_lines(self, quantities: Mapping[UUID, int], audit: AuditInfo) -> dict[UUID, int]:
        """Cancel quantities, given by line id, of a paid order.

        Return the units among them that are reserved; the others are of failed shipments. To cancel
        all units of an order of which nothing is shipped, call `cancel` instead. Raises
        InvalidTransition, TooMuchToCancel.
        """
        self._transition(OrderCommand.CANCEL_LINES, audit.at)
        if excess := _find_excess(quantities, self.unsettled_quantities(), "unfulfilled"):
            raise TooMuchToCancel(lines=excess)
        reserved = self.unfulfilled_quantities()
        self._change_lines(quantities, OrderLine.cancel)
        self._record("lines_cancelled", audit)
        self._complete_when_delivered(audit)
        return _decrease(reserved, self.unfulfilled_quantities())

    def fulfil(self, shipped_quantities: Mapping[UUID, int], audit: AuditInfo) -> dict[UUID, int]:
        """Ship quantities, given by line id. Raises InvalidTransition, TooMuchToFulfil.

        Return the units among them that are reserved; the others are of failed shipments, and need
        a new reservation.
        """
        self._transition(OrderCommand.FULFIL, audit.at)
        if not shipped_quantities:
            raise InvalidTransition(
                status=self.status.value, allowed=allowed_commands(self, audit.at)
            )
        if excess := _find_excess(shipped_quantities, self.unsettled_quantities(), "unfulfilled"):
            raise TooMuchToFulfil(lines=excess)
        reserved = self.unfulfilled_quantities()
        self._change_lines(shipped_quantities, OrderLine.ship)
        self._record("fulfilled", audit)
        return _decrease(reserved, self.unfulfilled_quantities())

    def deliver(self, delivered_quantities: Mapping[UUID, int], audit: AuditInfo) -> None:
        """Mark quantities, given by line id, as delivered.

        The last delivery completes the order.
        """
        self._transition(OrderCommand.DELIVER, audit.at)
        self._change_lines(
            delivered_quantities,
            lambda line, units: replace(line, delivered=line.delivered + units),
        )
        self._record("delivered", audit)
        self._complete_when_delivered(audit)

    def change_details(
        self,
        tags: tuple[str, ...],
        staff_note: str | None,
        metadata: Mapping[str, str],
        audit: AuditInfo,
    ) -> None:
        """Replace the tags, the staff note and the metadata. If all are the same, do nothing."""
        details = (tags, staff_note, dict(metadata))
        if details != (self.tags, self.staff_note, dict(self.metadata)):
            self.tags, self.staff_note, self.metadata = details
            self._record("details_changed", audit)

    def set_on_hold(self, on_hold: bool, audit: AuditInfo) -> None:
        """Stop or allow shipping. If it is stopped or allowed already, do nothing."""
        if on_hold != self.on_hold:
            self.on_hold = on_hold
            self._record("put_on_hold" if on_hold else "taken_off_hold", audit)

    def change_shipping_address(self, address: str | Address, audit: AuditInfo) -> None:
        """The caller must check that the amounts are the same at the address."""
        self._transition(OrderCommand.CHANGE_ADDRESS, audit.at)
        self.shipping_address = address
        self._record("shipping_address_changed", audit)

    def fail_shipment(self, quantities: Mapping[UUID, int], change: str, audit: AuditInfo) -> None:
        """Record that a shipment was lost or returned. `change` is the name of its entry."""
        self._transition(OrderCommand.FAIL_SHIPMENT, audit.at)
        self._change_lines(quantities, OrderLine.fail)
        self._record(change, audit)

    def start_return(self, quantities: Mapping[UUID, int], audit: AuditInfo) -> None:
        """Reserve delivered units, by line id, for a return. Raises TooMuchToReturn."""
        returnable = {line.line_id: line.returnable for line in self.lines}
        if excess := _find_excess(quantities, returnable, "returnable"):
            raise TooMuchToReturn(lines=excess)
        self._change_lines(
            quantities, lambda line, units: replace(line, in_return=line.in_return + units)
        )
        self._record("return_requested", audit)

    def end_return(self, quantities: Mapping[UUID, int], change: str, audit: AuditInfo) -> None:
        """Take the units out of a return that was rejected or cancelled."""
        self._change_lines(
            quantities, lambda line, units: replace(line, in_return=line.in_return - units)
        )
        self._record(change, audit)

    def close_return(
        self, quantities: Mapping[UUID, int], received: Mapping[UUID, int], audit: AuditInfo
    ) -> dict[UUID, LineShare]:
        """Count the received units as returned, and take the other units out of the return.

        Return the amounts of the received units, by line id. If a line has several closed returns,
        their amounts never include the same unit twice.
        """
        shares = {
            line.line_id: line.share_of_next_returned(received[line.line_id])
            for line in self.lines
            if line.line_id in received
        }
        self._change_lines(
            quantities,
            lambda line, units: replace(
                line,
                in_return=line.in_return - units,
                returned=line.returned + received.get(line.line_id, 0),
            ),
        )
        self._record("return_closed", audit)
        return shares

    def record_return(self, change: str, audit: AuditInfo) -> None:
        """Record a change of a return that leaves the units of the order as they are."""
        self._record(change, audit)

    def follow_payment(self, status: str, payment_version: int, audit: AuditInfo) -> None:
        """Record a status of the payment other than `captured`. Ignore an outdated status."""
        if not self._is_outdated(status, payment_version):
            self._set_payment_status(status)
            self.payment_version = max(self.payment_version, payment_version)
            self._record(f"payment_{status}", audit)

    def extend(self, expires_at: datetime, audit: AuditInfo) -> None:
        """Move the expiry of a pending order to the later expiry of its payment."""
        self.expires_at = expires_at
        self._record("deadline_extended", audit)

    def cancel_payment(self, audit: AuditInfo) -> None:
        """Record that the payment is cancelled, unless its capture or its end is recorded."""
        if not self.has_payment_ended:
            self._set_payment_status("cancelled")
            self._record("payment_cancelled", audit)

    def refund(self, refunded: int, captured: int, audit: AuditInfo) -> None:
        """Record the sum of all refunds. Ignore a sum that does not exceed the recorded one.

        Such a sum arrived late or twice.
        """
        if refunded > self.refunded:
            self.refunded = refunded
            if not self.is_authorized:
                self.payment_status = self._refunded_status(captured)
            self._record("payment_refunded", audit)

    def refund_additional(self, payment_id: UUID, refunded: int, audit: AuditInfo) -> None:
        """Record the sum of all refunds of an additional payment. Ignore a lower sum."""
        payment = self.get_additional_payment(payment_id)
        if payment and refunded > payment.refunded:
            self._replace_additional(replace(payment, refunded=refunded))
            self.payment_status = self._refunded_status(self.paid_amount)
            self._record("payment_refunded", audit)

    def record_dispute(self, audit: AuditInfo) -> None:
        """Record that a dispute of the payment was opened or has changed."""
        self._record("payment_disputed", audit)

    def knows_payment(self, payment_version: int) -> bool:
        """Whether the order has recorded this or a later version of the payment, or its capture."""
        return self.is_captured or payment_version <= self.payment_version

    def _is_outdated(self, status: str, payment_version: int) -> bool:
        if self.is_captured or self.refunded:
            return True
        if self.has_payment_ended and status not in ENDED_PAYMENT_STATUSES:
            return True
        # an event of an older release has version 0; treat it as 2, so that it is newer only than
        # a payment that was just opened (version 1)
        return (payment_version or 2) <= self.payment_version

    def _set_payment_status(self, status: str) -> None:
        self.provider_payment_status = status
        is_authorized = self.payment_status is OrderPaymentStatus.AUTHORIZED
        if is_authorized and status in ENDED_PAYMENT_STATUSES:
            self.payment_status = OrderPaymentStatus.VOIDED
        else:
            self.payment_status = PAYMENT_STATUSES.get(status, self.payment_status)

    def _record_authorization(self, payment_version: int) -> None:
        self._set_payment_status("authorized")
        self.payment_version = max(self.payment_version, payment_version)

    def _refunded_status(self, captured: int) -> OrderPaymentStatus:
        if self.refunded >= captured and not self.has_unrefunded_additional_payment:
            return OrderPaymentStatus.REFUNDED
        return OrderPaymentStatus.PARTIALLY_REFUNDED

    def _record_capture(self) -> None:
        self.provider_payment_status = "captured"
        has_ended = self.status in {OrderStatus.CANCELLED, OrderStatus.EXPIRED}
        if has_ended and not self.total:
            # an order with a total of 0 gets no refund, so its payment ends as voided
            self.payment_status = OrderPaymentStatus.VOIDED
        elif not self.total_refunded:
            self.payment_status = OrderPaymentStatus.PAID

    def _change_lines(
        self, quantities: Mapping[UUID, int], change: Callable[[OrderLine, int], OrderLine]
    ) -> None:
        """Apply the change to the lines with these ids, and derive the fulfilment status."""
        self.lines = tuple(
            change(line, quantities[line.line_id]) if line.line_id in quantities else line
            for line in self.lines
        )
        self.fulfilment_status = self._derive_fulfilment_status()

    def _derive_fulfilment_status(self) -> OrderFulfilmentStatus:
        shipped, delivered = (
            sum(getattr(line, name) for line in self.lines) for name in ("fulfilled", "delivered")
        )
        if not shipped:
            return OrderFulfilmentStatus.UNFULFILLED
        if self.unsettled_quantities():
            return OrderFulfilmentStatus.PARTIAL
        is_delivered = delivered == shipped
        return OrderFulfilmentStatus.DELIVERED if is_delivered else OrderFulfilmentStatus.FULFILLED

    def _complete_when_delivered(self, audit: AuditInfo) -> None:
        if is_fully_delivered(self, audit.at):
            self._transition(OrderCommand.COMPLETE, audit.at)
            self._record("completed", audit)


def _find_excess(
    requested: Mapping[UUID, int], available: Mapping[UUID, int], name: str
) -> list[dict[str, object]]:
    """Return the lines of which more units are requested than there are. `name` names these."""
    return [
        {"line_id": str(line_id), "requested": units, name: available.get(line_id, 0)}
        for line_id, units in requested.items()
        if units > available.get(line_id, 0)
    ]


def _decrease(before: Mapping[UUID, int], after: Mapping[UUID, int]) -> dict[UUID, int]:
    """Return by how much each quantity has decreased, without those that are the same."""
    return {
        line_id: quantity - after.get(line_id, 0)
        for line_id, quantity in before.items()
        if quantity > after.get(line_id, 0)
    }
