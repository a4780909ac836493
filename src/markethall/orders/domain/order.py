"""The order: its status transitions and its amounts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple
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
from markethall.orders.domain.order_command import OrderCommand
from markethall.orders.domain.order_line import OrderLine
from markethall.orders.domain.payment_statuses import ENDED_PAYMENT_STATUSES, PAYMENT_STATUSES
from markethall.orders.domain.shipping_line import ShippingLine
from markethall.orders.domain.timeline import AuditInfo, TimelineEntry
from markethall.orders.shop.contract import DEFAULT_NUMBER_PREFIX
from markethall.orders.totals.domain import (
    AppliedDiscount,
    LineBreakdown,
    TaxLine,
    sum_discounts,
    sum_tax_lines,
)
from markethall.shared.kernel.lookup_key import to_lookup_key


@dataclass
class Order:
    """An order. Amounts are in minor units of `currency`. Every change adds a timeline entry.

    A command that the status does not accept raises InvalidTransition.
    """

    order_id: UUID
    user_id: UUID
    currency: str
    lines: tuple[OrderLine, ...]
    shipping_address: str | Address
    billing_address: str | Address | None
    note: str | None
    payment_id: UUID
    reservation_id: UUID
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    # the time of the next attempt to expire the order, at first the original `expires_at`. Until
    # then, a job checks the payment whenever the order reaches one of CHECK_AGES
    overdue_check_at: datetime
    # the address for messages to the buyer about the order
    email: str | None = None
    # the owner is a guest: `user_id` is the id of the guest
    is_guest: bool = False
    number: int = 0
    status: OrderStatus = OrderStatus.PENDING
    payment_status: OrderPaymentStatus = OrderPaymentStatus.NONE
    fulfilment_status: OrderFulfilmentStatus = OrderFulfilmentStatus.UNFULFILLED
    provider_payment_status: str = "created"
    # the version of the payment when it had the status `provider_payment_status`
    payment_version: int = 1
    refunded: int = 0
    discount: int = 0
    shipping: int = 0
    tax: int = 0
    included_tax: int = 0
    shipping_line: ShippingLine | None = None
    number_prefix: str = DEFAULT_NUMBER_PREFIX
    version: int = 0
    pending_timeline_entries: tuple[TimelineEntry, ...] = ()

    @property
    def email_key(self) -> str | None:
        """The key by which staff find the orders of an e-mail address."""
        return None if self.email is None else to_lookup_key(self.email)

    @property
    def subtotal(self) -> int:
        return sum(line.total for line in self.lines)

    @property
    def total(self) -> int:
        return self.subtotal - self.discount + self.shipping + self.tax

    @property
    def discounts(self) -> tuple[AppliedDiscount, ...]:
        """The discounts of the order: one per promotion."""
        return sum_discounts(part.discounts for part in self._taxed_parts())

    @property
    def tax_lines(self) -> tuple[TaxLine, ...]:
        """The taxes of the order: one per name and rate."""
        return sum_tax_lines(part.tax_lines for part in self._taxed_parts())

    @property
    def prices_include_tax(self) -> bool:
        return any(part.prices_include_tax for part in self._taxed_parts())

    def _taxed_parts(self) -> tuple[OrderLine | LineBreakdown, ...]:
        return (*self.lines, self.shipping_line.breakdown) if self.shipping_line else self.lines

    @property
    def expected_version(self) -> int:
        """The version of the stored row, before the changes of this object."""
        return self.version - len(self.pending_timeline_entries)

    @property
    def has_changed(self) -> bool:
        """Whether this object has changes that are not stored."""
        return bool(self.pending_timeline_entries)

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
        if self.is_captured:
            self._record_capture()
        self._record("cancelled", audit)

    def cancel_lines(self, quantities: Mapping[UUID, int], audit: AuditInfo) -> None:
        """Cancel quantities, given by line id, of a paid order.

        To cancel all units of an order of which nothing is shipped, call `cancel` instead. Raises
        InvalidTransition, TooMuchToCancel.
        """
        self._transition(OrderCommand.CANCEL_LINES, audit.at)
        if excess := self._excess_quantities(quantities):
            raise TooMuchToCancel(lines=excess)
        self.lines = tuple(
            replace(line, cancelled=line.cancelled + quantities.get(line.line_id, 0))
            for line in self.lines
        )
        self.fulfilment_status = self._derive_fulfilment_status()
        self._record("lines_cancelled", audit)
        self._complete_when_delivered(audit)

    def fulfil(self, shipped_quantities: Mapping[UUID, int], audit: AuditInfo) -> None:
        """Ship quantities, given by line id. Raises InvalidTransition, TooMuchToFulfil."""
        self._transition(OrderCommand.FULFIL, audit.at)
        if excess := self._excess_quantities(shipped_quantities):
            raise TooMuchToFulfil(lines=excess)
        self.lines = tuple(
            replace(line, fulfilled=line.fulfilled + shipped_quantities.get(line.line_id, 0))
            for line in self.lines
        )
        self.fulfilment_status = self._derive_fulfilment_status()
        self._record("fulfilled", audit)

    def deliver(self, delivered_quantities: Mapping[UUID, int], audit: AuditInfo) -> None:
        """Mark quantities, given by line id, as delivered.

        The last delivery completes the order.
        """
        self._transition(OrderCommand.DELIVER, audit.at)
        self.lines = tuple(
            replace(line, delivered=line.delivered + delivered_quantities.get(line.line_id, 0))
            for line in self.lines
        )
        self.fulfilment_status = self._derive_fulfilment_status()
        self._record("delivered", audit)
        self._complete_when_delivered(audit)

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

    def record_dispute(self, audit: AuditInfo) -> None:
        """Record that a dispute of the payment was opened or has changed."""
        self._record("payment_disputed", audit)

    @property
    def has_nothing_shipped(self) -> bool:
        return not any(line.fulfilled for line in self.lines)

    @property
    def is_captured(self) -> bool:
        """Whether the capture of the payment is recorded."""
        return self.provider_payment_status == "captured"

    @property
    def is_authorized(self) -> bool:
        """Whether the authorization of the payment is recorded, and not its capture or its end."""
        return self.provider_payment_status == "authorized"

    def knows_payment(self, payment_version: int) -> bool:
        """Whether the order has recorded this or a later version of the payment, or its capture."""
        return self.is_captured or payment_version <= self.payment_version

    def unfulfilled_quantities(self) -> dict[UUID, int]:
        return {line.line_id: line.unfulfilled for line in self.lines if line.unfulfilled}

    def allowed_commands(self, now: datetime) -> list[str]:
        """Return the commands that the order accepts at this time."""
        return [
            row.command.value
            for row in TRANSITIONS
            if row.status is self.status and row.guard(self, now)
        ]

    def _is_outdated(self, status: str, payment_version: int) -> bool:
        if self.is_captured or self.refunded:
            return True
        if self.has_payment_ended and status not in ENDED_PAYMENT_STATUSES:
            return True
        # an event of an older release has version 0; treat it as 2, so that it is newer only than
        # a payment that was just opened (version 1)
        return (payment_version or 2) <= self.payment_version

    @property
    def has_payment_ended(self) -> bool:
        """Whether the capture of the payment, or its end without a capture, is recorded."""
        return self.is_captured or self.provider_payment_status in ENDED_PAYMENT_STATUSES

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
        if self.refunded >= captured:
            return OrderPaymentStatus.REFUNDED
        return OrderPaymentStatus.PARTIALLY_REFUNDED

    def _record_capture(self) -> None:
        self.provider_payment_status = "captured"
        has_ended = self.status in {OrderStatus.CANCELLED, OrderStatus.EXPIRED}
        if has_ended and not self.total:
            # an order with a total of 0 gets no refund, so its payment ends as voided
            self.payment_status = OrderPaymentStatus.VOIDED
        elif not self.refunded:
            self.payment_status = OrderPaymentStatus.PAID

    def _excess_quantities(self, quantities: Mapping[UUID, int]) -> list[dict[str, object]]:
        """Return the lines of which more units are requested than are unfulfilled."""
        unfulfilled = self.unfulfilled_quantities()
        return [
            {
                "line_id": str(line_id),
                "requested": quantity,
                "unfulfilled": unfulfilled.get(line_id, 0),
            }
            for line_id, quantity in quantities.items()
            if quantity > unfulfilled.get(line_id, 0)
        ]

    def _derive_fulfilment_status(self) -> OrderFulfilmentStatus:
        shipped, delivered = (
            sum(getattr(line, name) for line in self.lines) for name in ("fulfilled", "delivered")
        )
        if not shipped:
            return OrderFulfilmentStatus.UNFULFILLED
        if self.unfulfilled_quantities():
            return OrderFulfilmentStatus.PARTIAL
        is_delivered = delivered == shipped
        return OrderFulfilmentStatus.DELIVERED if is_delivered else OrderFulfilmentStatus.FULFILLED

    def _complete_when_delivered(self, audit: AuditInfo) -> None:
        if is_fully_delivered(self, audit.at):
            self._transition(OrderCommand.COMPLETE, audit.at)
            self._record("completed", audit)

    def _transition(self, command: OrderCommand, now: datetime) -> None:
        for row in TRANSITIONS:
            if (row.status, row.command) == (self.status, command) and row.guard(self, now):
                self.status = row.to
                return
        raise InvalidTransition(status=self.status.value, allowed=self.allowed_commands(now))

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


def split_number(text: str) -> tuple[str, int]:
    """Return the prefix and the number of a text such as "MH-1001", which ends with digits."""
    prefix = text.rstrip("0123456789")
    return prefix, int(text.removeprefix(prefix))


TransitionGuard = Callable[[Order, datetime], bool]


class Transition(NamedTuple):
    status: OrderStatus
    command: OrderCommand
    guard: TransitionGuard
    to: OrderStatus


def always(_: Order, __: datetime) -> bool:
    return True


def has_nothing_shipped(order: Order, _: datetime) -> bool:
    return order.has_nothing_shipped


def is_overdue(order: Order, now: datetime) -> bool:
    return order.expires_at <= now


def has_unfulfilled_paid_lines(order: Order, _: datetime) -> bool:
    """Tell whether there are lines to ship whose payment is not refunded or voided."""
    return bool(order.unfulfilled_quantities()) and order.payment_status not in {
        OrderPaymentStatus.REFUNDED,
        OrderPaymentStatus.VOIDED,
    }


def has_undelivered_shipments(order: Order, _: datetime) -> bool:
    return any(line.delivered < line.fulfilled for line in order.lines)


def is_fully_delivered(order: Order, _: datetime) -> bool:
    """Tell whether each unit is delivered or cancelled."""
    return all(line.delivered + line.cancelled == line.quantity for line in order.lines)


def has_unfulfilled_lines(order: Order, _: datetime) -> bool:
    return bool(order.unfulfilled_quantities())


_S, _C = OrderStatus, OrderCommand
TRANSITIONS: Final = (
    Transition(_S.PENDING, _C.PAY, always, _S.PROCESSING),
    Transition(_S.PENDING, _C.EXPIRE, is_overdue, _S.EXPIRED),
    Transition(_S.PENDING, _C.CANCEL, has_nothing_shipped, _S.CANCELLED),
    Transition(_S.PROCESSING, _C.CANCEL, has_nothing_shipped, _S.CANCELLED),
    Transition(_S.PROCESSING, _C.CANCEL_LINES, has_unfulfilled_lines, _S.PROCESSING),
    Transition(_S.PROCESSING, _C.FULFIL, has_unfulfilled_paid_lines, _S.PROCESSING),
    Transition(_S.PROCESSING, _C.DELIVER, has_undelivered_shipments, _S.PROCESSING),
    Transition(_S.PROCESSING, _C.COMPLETE, is_fully_delivered, _S.COMPLETED),
    Transition(_S.EXPIRED, _C.REINSTATE, always, _S.PROCESSING),
)
