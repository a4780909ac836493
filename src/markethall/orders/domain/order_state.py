"""The fields of an order, its timeline, and the facts that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.orders.contract import (
    Address,
    EditStatus,
    OrderFulfilmentStatus,
    OrderPaymentStatus,
    OrderStatus,
)
from markethall.orders.domain.order_edit import AdditionalPayment
from markethall.orders.domain.order_line import OrderLine, ShippingLine
from markethall.orders.promotions.domain import Redemption
from markethall.orders.shop.contract import DEFAULT_NUMBER_PREFIX
from markethall.orders.totals.domain import (
    AppliedDiscount,
    LineBreakdown,
    PromotionRule,
    TaxLine,
    sum_discounts,
    sum_tax_lines,
)
from markethall.shared.kernel.lookup_key import to_lookup_key
from markethall.shared.kernel.money import Money

# status of the payment -> payment status of the order. `captured` is missing, because `pay` and
# other commands record it. `cancelled` and `expired` are missing, because they leave the payment
# status of the order unchanged, for example `failed`: it shows why the order was not paid.
PAYMENT_STATUSES: Final[Mapping[str, OrderPaymentStatus]] = {
    "created": OrderPaymentStatus.NONE,
    "processing": OrderPaymentStatus.NONE,
    "requires_action": OrderPaymentStatus.NONE,
    "unknown": OrderPaymentStatus.NONE,
    "authorized": OrderPaymentStatus.AUTHORIZED,
    "failed": OrderPaymentStatus.FAILED,
    "voided": OrderPaymentStatus.VOIDED,
}
# statuses of a payment that has ended without money
ENDED_PAYMENT_STATUSES: Final = frozenset({"voided", "cancelled", "expired"})
# changes of an order after which the uses of its promotions change
_USE_CHANGES: Final = frozenset({"cancelled", "expired", "edited", "revived", "claimed"})


@dataclass(frozen=True)
class AuditInfo:
    """The actor, time and reason of a change."""

    actor: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True)
class TimelineEntry:
    """A change of an order, and the order's statuses after it."""

    version: int
    change: str
    actor: str
    at: datetime
    reason: str
    status: OrderStatus
    payment_status: OrderPaymentStatus
    fulfilment_status: OrderFulfilmentStatus


@dataclass
class OrderState:
    """The fields of an order. Amounts are in minor units of `currency`."""

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
    # the amount of the payment; None if it equals the total
    payment_amount: int | None = None
    discount: int = 0
    shipping: int = 0
    tax: int = 0
    included_tax: int = 0
    shipping_line: ShippingLine | None = None
    number_prefix: str = DEFAULT_NUMBER_PREFIX
    # the terms of the promotions with which the order was placed; they stay here even if an edit
    # drops the discount
    promotions: tuple[PromotionRule, ...] = ()
    # fields that staff maintain; if `on_hold` is true, nothing may be shipped
    tags: tuple[str, ...] = ()
    staff_note: str | None = None
    on_hold: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    # the cart that the order was made of
    cart_id: UUID | None = None
    # the payments of the open edit, and of the edits that have taken effect
    additional_payments: tuple[AdditionalPayment, ...] = ()
    version: int = 0
    pending_timeline_entries: tuple[TimelineEntry, ...] = ()

    @property
    def number_key(self) -> tuple[str, int]:
        """The key by which an order is found by its number."""
        return prefix_key(self.number_prefix), self.number

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

    def money(self, amount: int) -> Money:
        return Money(amount=amount, currency=self.currency)

    @property
    def shipping_charged(self) -> int:
        """The amount that the customer pays for shipping, with its discounts and taxes."""
        return self.total - sum(line.charged for line in self.lines)

    @property
    def total_due(self) -> int:
        """The total without the cancelled units and their share of discounts and taxes."""
        cancelled = sum(line.share(0, line.cancelled).amount for line in self.lines)
        return max(self.total - cancelled, 0)

    @property
    def shipped_due(self) -> int:
        """The part of the total that is due for the units shipped so far.

        Shipping is due with the first shipment.
        """
        if not self.unfulfilled_quantities():
            return self.total_due
        if self.has_nothing_shipped:
            return 0
        shipped = sum(
            line.share(line.quantity - line.fulfilled, line.fulfilled).amount for line in self.lines
        )
        return min(max(shipped + self.shipping_charged, 0), self.total_due)

    @property
    def discounts(self) -> tuple[AppliedDiscount, ...]:
        """The discounts of the order: one per promotion."""
        return sum_discounts(part.discounts for part in self._taxed_parts())

    @property
    def applied_promotions(self) -> tuple[PromotionRule, ...]:
        """The terms of the promotions whose discounts the order has."""
        discounted = {discount.promotion_id for discount in self.discounts}
        return tuple(rule for rule in self.promotions if rule.promotion_id in discounted)

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

    @property
    def use_change(self) -> str | None:
        """The pending change of the order that changes the uses of its promotions, or None."""
        changes = (entry.change for entry in self.pending_timeline_entries)
        change = next((change for change in changes if change in _USE_CHANGES), None)
        # an edit may have dropped the last discount
        may_have_uses = self.promotions if change == "edited" else self.discounts
        return change if may_have_uses else None

    def to_redemption(self, *, is_reinstatement: bool = False) -> Redemption:
        """Build the redemption of the promotions whose discounts the order has."""
        return Redemption(
            order_id=self.order_id,
            customer_id=self.user_id,
            promotion_ids=tuple(discount.promotion_id for discount in self.discounts),
            at=self.updated_at,
            is_reinstatement=is_reinstatement,
        )

    @property
    def open_edit(self) -> AdditionalPayment | None:
        """The edit that waits for its additional payment. An order has at most one."""
        open_edits = (one for one in self.additional_payments if one.status is EditStatus.OPEN)
        return next(open_edits, None)

    @property
    def applied_payments(self) -> tuple[AdditionalPayment, ...]:
        """The additional payments that are captured, the oldest first."""
        return tuple(one for one in self.additional_payments if one.status is EditStatus.APPLIED)

    @property
    def additional_paid(self) -> int:
        return sum(payment.amount for payment in self.applied_payments)

    @property
    def paid_amount(self) -> int:
        """The amount of the payment `payment_id`."""
        return self.total if self.payment_amount is None else self.payment_amount

    @property
    def total_refunded(self) -> int:
        """The sum of the refunds of all payments."""
        return self.refunded + sum(payment.refunded for payment in self.applied_payments)

    @property
    def has_unrefunded_additional_payment(self) -> bool:
        return any(payment.refunded < payment.amount for payment in self.applied_payments)

    def get_additional_payment(self, payment_id: UUID) -> AdditionalPayment | None:
        """Return the additional payment with this id, of an open or an applied edit."""
        live = (one for one in self.additional_payments if one.status is not EditStatus.DROPPED)
        return next((one for one in live if one.payment_id == payment_id), None)

    @property
    def has_nothing_shipped(self) -> bool:
        return not any(line.fulfilled or line.failed for line in self.lines)

    @property
    def is_captured(self) -> bool:
        """Whether the capture of the payment is recorded."""
        return self.provider_payment_status == "captured"

    @property
    def is_paid(self) -> bool:
        """Whether the payment is captured or authorized."""
        return self.status is OrderStatus.PROCESSING

    @property
    def is_authorized(self) -> bool:
        """Whether the authorization of the payment is recorded, and not its capture or its end."""
        return self.provider_payment_status == "authorized"

    @property
    def has_payment_ended(self) -> bool:
        """Whether the capture of the payment, or its end without a capture, is recorded."""
        return self.is_captured or self.provider_payment_status in ENDED_PAYMENT_STATUSES

    def unfulfilled_quantities(self) -> dict[UUID, int]:
        return {line.line_id: line.unfulfilled for line in self.lines if line.unfulfilled}

    def unsettled_quantities(self) -> dict[UUID, int]:
        """Return the units that can be shipped or cancelled, also those of failed shipments."""
        return {line.line_id: line.unsettled for line in self.lines if line.unsettled}


def split_number(text: str) -> tuple[str, int]:
    """Return the key of a text such as "MH-1001", which ends with digits: ("mh-", 1001)."""
    prefix = text.rstrip("0123456789")
    return prefix_key(prefix), int(text.removeprefix(prefix))


def prefix_key(prefix: str) -> str:
    """Return the prefix in lower case, because buyers type numbers in any letter case."""
    return prefix.lower()
