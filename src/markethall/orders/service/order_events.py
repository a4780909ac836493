"""Build the events of orders from their entities, and count them in the metrics."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prometheus_client import Counter

from markethall.orders.contract import (
    EditStatus,
    FulfilledLine,
    FulfilmentReturned,
    OrderCancelled,
    OrderCompleted,
    OrderEditDropped,
    OrderEdited,
    OrderExpired,
    OrderFulfilled,
    OrderLinesCancelled,
    OrderOverpaid,
    OrderPaid,
    OrderPlaced,
)
from markethall.orders.domain import AdditionalPayment, Fulfilment, FulfilmentLine, Order, OrderLine
from markethall.shared.messaging.events import Event
from markethall.shared.observability.metrics import ORDERS


def placed_event(order: Order) -> OrderPlaced:
    total = order.money(order.total)
    return OrderPlaced(order_id=order.order_id, user_id=order.user_id, total=total)


def paid_event(order: Order) -> OrderPaid:
    return OrderPaid(order_id=order.order_id, reservation_id=order.reservation_id)


def cancelled_event(order: Order, reason: str) -> OrderCancelled:
    return OrderCancelled(
        order_id=order.order_id,
        reservation_id=order.reservation_id,
        payment_id=order.payment_id,
        additional_payment_ids=tuple(one.payment_id for one in order.additional_payments),
        # the event is built after the cancellation, and the cancellation has ended the open edit
        edit_reservation_id=next(
            (
                payment.reservation_id
                for payment in order.additional_payments
                if payment.status is EditStatus.DROPPED
            ),
            None,
        ),
        reason=reason,
    )


def edit_dropped_event(order: Order, payment: AdditionalPayment, reason: str) -> OrderEditDropped:
    return OrderEditDropped(
        order_id=order.order_id,
        edit_id=payment.edit_id,
        payment_id=payment.payment_id,
        reservation_id=payment.reservation_id,
        reason=reason,
    )


def edited_event(
    order: Order,
    lines_before: Iterable[OrderLine],
    edit_id: UUID,
    merged_reservation_id: UUID | None,
    refund: int = 0,
) -> OrderEdited:
    """Return the event; `refund` is in minor units of the order's currency."""
    return OrderEdited(
        order_id=order.order_id,
        edit_id=edit_id,
        reservation_id=order.reservation_id,
        merged_reservation_id=merged_reservation_id,
        released_lines=_list_released_lines(lines_before, order.lines),
        payment_id=order.payment_id,
        refund=order.money(refund),
        additional_payment_ids=additional_payment_ids(order),
    )


def _list_released_lines(
    before: Iterable[OrderLine], after: Iterable[OrderLine]
) -> tuple[FulfilledLine, ...]:
    """Return the units that the order no longer has."""
    quantities = {line.product_id: line.quantity for line in after}
    fewer = ((line, line.quantity - quantities.get(line.product_id, 0)) for line in before)
    return tuple(
        FulfilledLine(product_id=line.product_id, quantity=units)
        for line, units in fewer
        if units > 0
    )


def additional_payment_ids(order: Order) -> tuple[UUID, ...]:
    """Return the ids of the additional payments, which share refunds with the first payment."""
    return tuple(payment.payment_id for payment in order.applied_payments)


def lines_cancelled_event(
    order: Order,
    quantities: Mapping[UUID, int],
    reserved: Mapping[UUID, int],
    cancellation_id: UUID,
    reason: str,
) -> OrderLinesCancelled:
    """Return the event; `reserved` are the cancelled units whose stock is still reserved."""
    cancelled = [line for line in order.lines if line.line_id in quantities]
    price = sum(_share_of_last_cancelled(line, quantities[line.line_id]) for line in cancelled)
    # without a capture there is nothing to refund: the captures leave out these units
    amount = price if order.is_captured else 0
    return OrderLinesCancelled(
        order_id=order.order_id,
        reservation_id=order.reservation_id,
        payment_id=order.payment_id,
        cancellation_id=cancellation_id,
        lines=_to_fulfilled_lines(order.lines, reserved),
        amount=order.money(amount),
        reason=reason,
        additional_payment_ids=additional_payment_ids(order),
    )


def _share_of_last_cancelled(line: OrderLine, units: int) -> int:
    """Return the amount of the `units` units of the line that were cancelled most recently."""
    return line.share(line.cancelled - units, units).amount


def overpaid_event(order: Order, excess: int) -> OrderOverpaid:
    """Return the event; `excess` is in minor units of the order's currency."""
    return OrderOverpaid(
        order_id=order.order_id, payment_id=order.payment_id, amount=order.money(excess)
    )


@dataclass(frozen=True)
class ShippedUnits:
    """The units of a shipment, by line id.

    The order's reservation reserves `reserved` of them; `reshipment_id` is the reservation of the
    others, which are shipped again.
    """

    quantities: Mapping[UUID, int]
    reserved: Mapping[UUID, int]
    reshipment_id: UUID

    @property
    def reshipped(self) -> dict[UUID, int]:
        units = {
            line_id: quantity - self.reserved.get(line_id, 0)
            for line_id, quantity in self.quantities.items()
        }
        return {line_id: quantity for line_id, quantity in units.items() if quantity}


def fulfilled_event(order: Order, fulfilment: Fulfilment, shipment: ShippedUnits) -> OrderFulfilled:
    reshipped = shipment.reshipped
    return OrderFulfilled(
        order_id=order.order_id,
        reservation_id=order.reservation_id,
        fulfilment_id=fulfilment.fulfilment_id,
        lines=_to_fulfilled_lines(fulfilment.lines, shipment.reserved),
        reshipped=_to_fulfilled_lines(fulfilment.lines, reshipped),
        reshipment_id=shipment.reshipment_id if reshipped else None,
    )


def fulfilment_returned_event(fulfilment: Fulfilment) -> FulfilmentReturned:
    return FulfilmentReturned(
        order_id=fulfilment.order_id,
        fulfilment_id=fulfilment.fulfilment_id,
        restocked=_to_fulfilled_lines(
            fulfilment.lines, fulfilment.quantities if fulfilment.restocked else {}
        ),
    )


def _to_fulfilled_lines(
    lines: Iterable[OrderLine | FulfilmentLine], quantities: Mapping[UUID, int]
) -> tuple[FulfilledLine, ...]:
    return tuple(
        FulfilledLine(product_id=line.product_id, quantity=quantities[line.line_id])
        for line in lines
        if line.line_id in quantities
    )


# an order that is paid after it has expired is counted as expired and as paid
ORDER_COUNTERS: Final[Mapping[type[Event], Counter]] = {
    OrderPlaced: ORDERS.labels("placed"),
    OrderPaid: ORDERS.labels("paid"),
    OrderCancelled: ORDERS.labels("cancelled"),
    OrderExpired: ORDERS.labels("expired"),
    OrderCompleted: ORDERS.labels("completed"),
}
