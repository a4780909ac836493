"""Rules between an order and its lines, its payment and its reservation."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from markethall.orders.contract import OrderPaymentStatus, OrderStatus
from markethall.shared.kernel.integrity import OffendingRow

# payment statuses of an order whose payment is captured
_PAID_STATUSES: Final = frozenset(
    {OrderPaymentStatus.PAID, OrderPaymentStatus.PARTIALLY_REFUNDED, OrderPaymentStatus.REFUNDED}
)
_SOLD_STATUSES: Final = frozenset({OrderStatus.PROCESSING, OrderStatus.COMPLETED})
_LIVE_RESERVATIONS: Final = frozenset({"committed", "consumed"})


@dataclass(frozen=True)
class OrderSums:
    """The amounts of an order, and the sums of its lines, in minor units.

    `line_total` is the sum of the totals of the lines; `unit_total` is the sum of their unit prices
    times their quantities. The parts of `discount` and `tax` that do not belong to lines belong to
    shipping.
    """

    order_id: UUID
    subtotal: int
    discount: int
    shipping: int
    tax: int
    total: int
    line_total: int
    unit_total: int
    line_discount: int
    line_tax: int


@dataclass(frozen=True)
class OrderLink:
    """The fields of an order that have to agree with its payment and its reservation."""

    order_id: UUID
    payment_id: UUID
    reservation_id: UUID
    status: OrderStatus
    payment_status: OrderPaymentStatus
    currency: str
    total: int
    # the amount of the payment; None if it equals the total
    payment_amount: int | None
    refunded: int
    expires_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class OrderedCart:
    """A cart that is checked out or has orders. `cart_status` is None if the cart is deleted."""

    cart_id: UUID
    # the smallest order id if the cart has several orders
    order_id: UUID | None
    order_count: int
    cart_status: str | None
    cart_order_id: UUID | None


@dataclass(frozen=True)
class PaymentFacts:
    """The fields of a payment that have to agree with its order. Amounts are in minor units."""

    payment_id: UUID
    order_id: UUID
    status: str
    currency: str
    amount: int
    captured: int
    refunded: int
    settled_at: datetime | None


@dataclass(frozen=True)
class ReservationFacts:
    reservation_id: UUID
    order_id: UUID
    status: str


def judge_total(sums: OrderSums) -> Iterator[OffendingRow]:
    if sums.total != sums.subtotal - sums.discount + sums.shipping + sums.tax:
        yield _order_row(
            sums.order_id,
            f"total is {sums.total}, subtotal {sums.subtotal}, discount {sums.discount},"
            f" shipping {sums.shipping}, tax {sums.tax}",
        )
    for name, amount in (("totals", sums.line_total), ("prices", sums.unit_total)):
        if sums.subtotal != amount:
            yield _order_row(
                sums.order_id, f"subtotal is {sums.subtotal}, the {name} of its lines are {amount}"
            )

    yield from _judge_shipping(sums)


def _judge_shipping(sums: OrderSums) -> Iterator[OffendingRow]:
    """Check discount and tax of the shipping: those of the order minus the sums of its lines."""
    discount, tax = sums.discount - sums.line_discount, sums.tax - sums.line_tax
    if not 0 <= discount <= sums.shipping:
        yield _order_row(
            sums.order_id,
            f"discount is {sums.discount}, of its lines {sums.line_discount}, shipping is"
            f" {sums.shipping}",
        )
    if tax < 0 or (tax and discount == sums.shipping):
        yield _order_row(
            sums.order_id,
            f"tax is {sums.tax}, of its lines {sums.line_tax}, shipping without discount is"
            f" {sums.shipping - discount}",
        )


def judge_pending(order: OrderLink) -> Iterator[OffendingRow]:
    yield _order_row(
        order.order_id, f"pending, although it has expired at {order.expires_at.isoformat()}"
    )


def judge_cart(cart: OrderedCart) -> Iterator[OffendingRow]:
    """Check that a cart has one order, and that both have the id of the other."""
    row = f"cart cart_id={cart.cart_id}"
    if cart.order_count > 1:
        yield OffendingRow(row=row, problem=f"has {cart.order_count} orders")
    elif not cart.order_count:
        yield OffendingRow(
            row=row, problem=f"checked out, but order {cart.cart_order_id} does not have it"
        )
    elif cart.cart_status and cart.cart_order_id != cart.order_id:
        yield OffendingRow(
            row=row,
            problem=f"is {cart.cart_status} with order {cart.cart_order_id}, but order"
            f" {cart.order_id} has it",
        )


def judge_amount(order: OrderLink | None, payment: PaymentFacts | None) -> Iterator[OffendingRow]:
    """Check that a payment has the order, the amount and the currency of its order."""
    if order is None or payment is None:
        return
    if payment.order_id != order.order_id:
        yield _order_row(
            order.order_id, f"its payment {payment.payment_id} is of order {payment.order_id}"
        )
    due = order.total if order.payment_amount is None else order.payment_amount
    if (payment.amount, payment.currency) != (due, order.currency):
        yield _order_row(
            order.order_id,
            f"total is {due} {order.currency}, its payment {payment.payment_id} is of"
            f" {payment.amount} {payment.currency}",
        )


def judge_paid(order: OrderLink | None, payment: PaymentFacts | None) -> Iterator[OffendingRow]:
    """Check that an order is paid if and only if its payment is captured, with the same refunds."""
    if order is None:
        yield from _judge_without_order(payment)
        return
    if payment is None:
        yield _order_row(order.order_id, f"its payment {order.payment_id} does not exist")
        return
    is_captured = payment.status == "captured"
    has_money = payment.captured > 0 or (is_captured and not payment.amount)
    is_paid = order.payment_status in _PAID_STATUSES
    states = f"{order.status}, {order.payment_status}; its payment {payment.payment_id} is"
    if is_paid and not has_money:
        yield _order_row(order.order_id, f"{states} {payment.status}, nothing is captured")
    elif is_captured and not is_paid and payment.amount:
        yield _order_row(order.order_id, f"{states} captured")
    if order.refunded != payment.refunded:
        yield _order_row(
            order.order_id, f"refunded is {order.refunded}, of its payment {payment.refunded}"
        )


def judge_reserved(
    order: OrderLink | None, reservations: tuple[ReservationFacts, ...]
) -> Iterator[OffendingRow]:
    """Check that a sold order has committed its reservation, and that no other is committed."""
    is_sold = order is not None and order.status in _SOLD_STATUSES
    own = order.reservation_id if order and is_sold else None
    for reservation in reservations:
        if reservation.status == "committed" and reservation.reservation_id != own:
            yield OffendingRow(
                row=f"reservation reservation_id={reservation.reservation_id}",
                problem=f"committed, but order {reservation.order_id} is"
                f" {order.status if order else 'missing'}",
            )
    found = next((one for one in reservations if one.reservation_id == own), None)
    if order and is_sold and (found is None or found.status not in _LIVE_RESERVATIONS):
        yield _order_row(
            order.order_id,
            f"{order.status}, its reservation {order.reservation_id} is"
            f" {found.status if found else 'missing'}",
        )


def _judge_without_order(payment: PaymentFacts | None) -> Iterator[OffendingRow]:
    if payment and payment.captured > payment.refunded:
        yield OffendingRow(
            row=f"payment payment_id={payment.payment_id}",
            problem=f"{payment.captured - payment.refunded} {payment.currency} are captured,"
            f" but there is no order {payment.order_id}",
        )


def _order_row(order_id: UUID, problem: str) -> OffendingRow:
    return OffendingRow(row=f"order order_id={order_id}", problem=problem)
