"""A model of a shop: the effect of each command, written without the code under test.

The model assumes that all events are handled after each command.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from tests.orders.lifecycle.amounts import VOUCHERS, Amounts, Units, calculate

STOCK: Final = (14, 8)
BUYER, OTHER, GUEST = range(3)
ORDER_LIFETIME: Final = timedelta(minutes=14)
# the reservation of an order ends later than the order
RESERVATION_MARGIN: Final = timedelta(minutes=1)
PAYABLE_STATUSES: Final = frozenset({"created", "failed", "requires_action"})
LIVE_STATUSES: Final = frozenset({"pending", "processing", "completed"})


@dataclass
class ModelLine:
    """A line. Units are cancelled from the first one on, and shipped from the last one on."""

    amounts: tuple[int, ...]
    # number of shipped units, without the units of failed shipments
    shipped: int = 0
    delivered: int = 0
    failed: int = 0
    cancelled: int = 0
    in_return: int = 0
    returned: int = 0

    @property
    def quantity(self) -> int:
        return len(self.amounts)

    @property
    def unfulfilled(self) -> int:
        return self.quantity - self.shipped - self.failed - self.cancelled

    @property
    def unsettled(self) -> int:
        return self.unfulfilled + self.failed

    @property
    def returnable(self) -> int:
        return self.delivered - self.in_return - self.returned

    @property
    def cancelled_amount(self) -> int:
        return sum(self.amounts[: self.cancelled])

    def amount_of_last(self, units: int) -> int:
        return sum(self.amounts[self.quantity - units :])


@dataclass
class ModelShipment:
    units: Units
    status: str = "shipped"


@dataclass
class ModelReturn:
    units: Units
    status: str = "requested"
    received: Counter[int] = field(default_factory=Counter)


@dataclass
class ModelOrder:
    customer: int
    amounts: Amounts
    voucher: str | None
    expires_at: datetime
    lines: dict[int, ModelLine]
    # the amount of the first payment, which an edit does not change
    payment_amount: int
    status: str = "pending"
    payment: str = "created"
    on_hold: bool = False
    is_stock_reserved: bool = True
    # the captured part of an authorized payment
    captured_parts: int = 0
    is_shipping_refunded: bool = False
    shipments: list[ModelShipment] = field(default_factory=list)
    returns: list[ModelReturn] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """The amount of the customer's money that the shop keeps."""
        if self.status in {"pending", "cancelled", "expired"}:
            return 0
        if self.payment == "authorized":
            return self.captured_parts - self.returned_amount
        return self.total_due - self.returned_amount

    @property
    def total_due(self) -> int:
        return self.amounts.total - sum(line.cancelled_amount for line in self.lines.values())

    @property
    def returned_amount(self) -> int:
        units = sum(line.amount_of_last(line.returned) for line in self.lines.values())
        return units + (self.amounts.shipping_paid if self.is_shipping_refunded else 0)

    @property
    def shipped_due(self) -> int:
        """The amount due for the shipped units. Shipping costs are due with the first shipment."""
        if not any(line.unfulfilled for line in self.lines.values()):
            return self.total_due
        if self.nothing_shipped:
            return 0
        shipped = sum(line.amount_of_last(line.shipped) for line in self.lines.values())
        return min(shipped + self.amounts.shipping_paid, self.total_due)

    @property
    def nothing_shipped(self) -> bool:
        return not any(line.shipped or line.failed for line in self.lines.values())

    @property
    def is_payable(self) -> bool:
        return self.status == "pending" and self.payment in PAYABLE_STATUSES

    @property
    def is_editable(self) -> bool:
        is_untouched = not any(
            line.shipped or line.failed or line.cancelled for line in self.lines.values()
        )
        return self.status == "processing" and is_untouched

    @property
    def unsettled(self) -> dict[int, int]:
        return {i: line.unsettled for i, line in self.lines.items() if line.unsettled}

    def capture_shipped(self) -> None:
        """Capture the due amount of an authorized payment. The last part makes it captured."""
        if self.payment == "authorized":
            self.captured_parts = max(self.captured_parts, self.shipped_due)
            if self.shipped_due == self.total_due:
                self.payment = "captured"

    def complete_if_done(self) -> None:
        if all(one.delivered + one.cancelled == one.quantity for one in self.lines.values()):
            self.status = "completed"


@dataclass
class ModelCart:
    customer: int
    units: dict[int, int]
    has_address: bool
    voucher: str | None = None
    is_open: bool = True
    merged_into: "ModelCart | None" = None


@dataclass
class ShopModel:
    start: datetime
    orders: list[ModelOrder] = field(default_factory=list)
    on_hand: list[int] = field(default_factory=lambda: list(STOCK))

    def reserved(self, index: int) -> int:
        return sum(
            order.lines[index].unfulfilled
            for order in self.orders
            if order.status in {"pending", "processing"}
            and order.is_stock_reserved
            and index in order.lines
        )

    def available(self, index: int) -> int:
        return self.on_hand[index] - self.reserved(index)

    def has_stock(self, units: Units) -> bool:
        return all(self.available(index) >= number for index, number in units.items())

    def uses(self, code: str, customer: int | None = None) -> int:
        return sum(
            order.voucher == code
            and order.status in LIVE_STATUSES
            and customer in {None, order.customer}
            for order in self.orders
        )

    def has_use_left(self, code: str, customer: int) -> bool:
        voucher = VOUCHERS[code]
        if voucher.max_uses is not None and self.uses(code) >= voucher.max_uses:
            return False
        limit = voucher.max_uses_per_customer
        return limit is None or self.uses(code, customer) < limit

    def can_use(self, code: str | None, customer: int, units: Units, now: datetime) -> bool:
        if code is None:
            return True
        voucher, age = VOUCHERS[code], now - self.start
        is_early = voucher.starts_after is not None and age < voucher.starts_after
        is_late = voucher.ends_after is not None and age >= voucher.ends_after
        if is_early or is_late or not self.has_use_left(code, customer):
            return False
        return calculate(units, code).voucher_discount > 0

    # Purchases

    def place(self, customer: int, units: Units, code: str | None, now: datetime) -> bool:
        if not self.has_stock(units) or not self.can_use(code, customer, units, now):
            return False
        amounts = calculate(units, code)
        lines = {index: ModelLine(amounts.units[index]) for index in units}
        expires_at = now + ORDER_LIFETIME
        self.orders.append(ModelOrder(customer, amounts, code, expires_at, lines, amounts.total))
        return True

    def check_out(self, cart: ModelCart, now: datetime) -> bool:
        if not (cart.is_open and cart.units and cart.has_address):
            return False
        if not self.place(cart.customer, dict(cart.units), cart.voucher, now):
            return False
        cart.is_open = False
        return True

    # Payments

    def pay(self, order: ModelOrder, payment: str) -> None:
        """Pay a pending order. If its reservation has expired, its stock may be sold to others."""
        order.payment, order.status = payment, "processing"
        if order.is_stock_reserved:
            return
        if self.has_stock({i: line.quantity for i, line in order.lines.items()}):
            order.is_stock_reserved = True
        else:
            self.end(order, "cancelled")

    def pay_late(self, order: ModelOrder, payment: str) -> None:
        """Pay an order that has ended. An expired order continues if stock and voucher are left."""
        units = {i: line.quantity for i, line in order.lines.items()}
        has_use = order.voucher is None or self.has_use_left(order.voucher, order.customer)
        if order.status == "expired" and self.has_stock(units) and has_use:
            order.payment, order.status, order.is_stock_reserved = payment, "processing", True
        else:
            order.payment = "captured" if payment == "captured" else "voided"

    def expire(self, now: datetime) -> None:
        for order in self.orders:
            if order.status != "pending":
                continue
            if order.expires_at + RESERVATION_MARGIN <= now:
                order.is_stock_reserved = False
            if order.expires_at <= now and order.payment != "processing":
                self.end(order, "expired")

    # Cancellations

    def end(self, order: ModelOrder, status: str) -> None:
        order.status = status
        if order.payment in PAYABLE_STATUSES:
            order.payment = "cancelled"
        elif order.payment == "authorized":
            order.payment = "captured" if order.captured_parts else "voided"

    def cancel(self, order: ModelOrder) -> bool:
        if order.status not in {"pending", "processing"}:
            return False
        if order.nothing_shipped:
            self.end(order, "cancelled")
            return True
        return self._cancel_units(order, order.unsettled)

    def cancel_units(self, order: ModelOrder, index: int, units: int) -> bool:
        if order.nothing_shipped and order.unsettled == {index: units}:
            return self.cancel(order)
        return self._cancel_units(order, {index: units})

    def _cancel_units(self, order: ModelOrder, units: Units) -> bool:
        left = order.unsettled
        if order.status != "processing" or not units or not left:
            return False
        if any(number > left.get(index, 0) for index, number in units.items()):
            return False
        for index, number in units.items():
            line = order.lines[index]
            line.failed -= min(number, line.failed)
            line.cancelled += number
        order.complete_if_done()
        order.capture_shipped()
        return True

    def edit(self, order: ModelOrder, index: int, quantity: int, *, pays: bool) -> bool:
        """Change the units of one product of a paid order, which keeps its promotions.

        A promotion that takes nothing off any more is dropped.
        `pays`: whether the customer pays the difference if the edit makes the order cost more.
        """
        before = {i: line.quantity for i, line in order.lines.items()}
        after = {i: n for i, n in (before | {index: quantity}).items() if n}
        if not order.is_editable or not after:
            return False
        may_have_bulk = order.amounts.has_bulk_discount
        amounts = calculate(after, order.voucher, may_have_bulk=may_have_bulk)
        costs_more = amounts.total > order.amounts.total
        if costs_more and order.payment == "authorized":
            return False
        if quantity - before.get(index, 0) > self.available(index):
            return False
        if not costs_more or pays:
            order.amounts = amounts
            order.voucher = order.voucher if amounts.voucher_discount else None
            order.lines = {i: ModelLine(amounts.units[i]) for i in after}
        return True

    # Shipments

    def ship(self, order: ModelOrder, index: int, units: int) -> bool:
        line = order.lines[index]
        if order.status != "processing" or order.on_hold or units > line.unsettled:
            return False
        again = max(units - line.unfulfilled, 0)
        if again > self.available(index):
            return False
        line.failed -= again
        line.shipped += units
        self.on_hand[index] -= units
        order.shipments.append(ModelShipment({index: units}))
        order.capture_shipped()
        return True

    def end_shipment(self, order: ModelOrder, shipment: ModelShipment, status: str) -> bool:
        """Deliver a shipment, or report it as lost or returned."""
        if shipment.status != "shipped":
            return False
        shipment.status = status
        for index, units in shipment.units.items():
            line = order.lines[index]
            if status == "delivered":
                line.delivered += units
            else:
                line.shipped -= units
                line.failed += units
            if status == "restocked":
                self.on_hand[index] += units
        if status == "delivered":
            order.complete_if_done()
        return True

    # Returns

    def request_return(self, order: ModelOrder, index: int, units: int) -> bool:
        line = order.lines[index]
        if units > line.returnable:
            return False
        line.in_return += units
        order.returns.append(ModelReturn({index: units}))
        return True

    def approve_return(self, made: ModelReturn) -> bool:
        if made.status != "requested":
            return False
        made.status = "approved"
        return True

    def end_return(self, order: ModelOrder, made: ModelReturn, status: str) -> bool:
        """Reject or cancel a return."""
        if (
            made.status
            not in {"rejected": ("requested",), "cancelled": ("requested", "approved")}[status]
        ):
            return False
        made.status = status
        for index, units in made.units.items():
            order.lines[index].in_return -= units
        return True

    def receive(self, made: ModelReturn, index: int, units: int, *, restock: bool) -> bool:
        left = made.units.get(index, 0) - made.received[index]
        if made.status not in {"approved", "received"} or units > left:
            return False
        made.status = "received"
        made.received[index] += units
        if restock:
            self.on_hand[index] += units
        return True

    def close_return(self, order: ModelOrder, made: ModelReturn, *, refund_shipping: bool) -> bool:
        if made.status != "received" or (refund_shipping and order.is_shipping_refunded):
            return False
        made.status = "closed"
        order.is_shipping_refunded |= refund_shipping and order.amounts.shipping_paid > 0
        for index, units in made.units.items():
            order.lines[index].in_return -= units
            order.lines[index].returned += made.received[index]
        return True
