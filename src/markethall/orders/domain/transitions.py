"""The commands of an order, and its status transitions as one table."""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from markethall.orders.contract import OrderPaymentStatus, OrderStatus
from markethall.orders.domain.order_state import OrderState


class OrderCommand(StrEnum):
    PAY = "pay"
    CANCEL = "cancel"
    CANCEL_LINES = "cancel_lines"
    EXPIRE = "expire"
    REINSTATE = "reinstate"
    CHANGE_ADDRESS = "change_address"
    EDIT = "edit"
    FULFIL = "fulfil"
    DELIVER = "deliver"
    FAIL_SHIPMENT = "fail_shipment"
    COMPLETE = "complete"


TransitionGuard = Callable[[OrderState, datetime], bool]


class Transition(NamedTuple):
    status: OrderStatus
    command: OrderCommand
    guard: TransitionGuard
    to: OrderStatus


def always(_: OrderState, __: datetime) -> bool:
    return True


def has_nothing_shipped(order: OrderState, _: datetime) -> bool:
    return order.has_nothing_shipped


def is_overdue(order: OrderState, now: datetime) -> bool:
    return order.expires_at <= now


def has_unfulfilled_paid_lines(order: OrderState, _: datetime) -> bool:
    """Tell whether there are lines to ship whose payment is not refunded or voided.

    An order that costs nothing needs no payment: an edit may have refunded all of it.
    """
    is_returned = order.payment_status in {OrderPaymentStatus.REFUNDED, OrderPaymentStatus.VOIDED}
    return bool(order.unsettled_quantities()) and not (is_returned and order.total)


def is_editable(order: OrderState, now: datetime) -> bool:
    """Tell whether no unit is shipped or cancelled, and the order is paid or can be paid."""
    is_untouched = not any(line.fulfilled or line.cancelled or line.failed for line in order.lines)
    return (
        is_untouched
        and not order.open_edit
        and (
            order.expires_at > now
            if order.status is OrderStatus.PENDING
            else has_unfulfilled_paid_lines(order, now)
        )
    )


def can_be_shipped(order: OrderState, now: datetime) -> bool:
    is_stopped = order.on_hold or order.open_edit is not None
    return not is_stopped and has_unfulfilled_paid_lines(order, now)


def has_undelivered_shipments(order: OrderState, _: datetime) -> bool:
    return any(line.delivered < line.fulfilled for line in order.lines)


def is_fully_delivered(order: OrderState, _: datetime) -> bool:
    """Tell whether each unit is delivered or cancelled."""
    return all(line.delivered + line.cancelled == line.quantity for line in order.lines)


def can_cancel_units(order: OrderState, _: datetime) -> bool:
    return bool(order.unsettled_quantities()) and not order.open_edit


def can_change_address(order: OrderState, _: datetime) -> bool:
    return order.has_nothing_shipped and not order.open_edit


_S, _C = OrderStatus, OrderCommand
TRANSITIONS: Final = (
    Transition(_S.PENDING, _C.PAY, always, _S.PROCESSING),
    Transition(_S.PENDING, _C.EXPIRE, is_overdue, _S.EXPIRED),
    Transition(_S.PENDING, _C.CANCEL, has_nothing_shipped, _S.CANCELLED),
    Transition(_S.PROCESSING, _C.CANCEL, has_nothing_shipped, _S.CANCELLED),
    Transition(_S.PENDING, _C.CHANGE_ADDRESS, always, _S.PENDING),
    Transition(_S.PROCESSING, _C.CHANGE_ADDRESS, can_change_address, _S.PROCESSING),
    Transition(_S.PENDING, _C.EDIT, is_editable, _S.PENDING),
    Transition(_S.PROCESSING, _C.EDIT, is_editable, _S.PROCESSING),
    Transition(_S.PROCESSING, _C.CANCEL_LINES, can_cancel_units, _S.PROCESSING),
    Transition(_S.PROCESSING, _C.FULFIL, can_be_shipped, _S.PROCESSING),
    Transition(_S.PROCESSING, _C.DELIVER, has_undelivered_shipments, _S.PROCESSING),
    Transition(_S.PROCESSING, _C.FAIL_SHIPMENT, has_undelivered_shipments, _S.PROCESSING),
    Transition(_S.PROCESSING, _C.COMPLETE, is_fully_delivered, _S.COMPLETED),
    Transition(_S.EXPIRED, _C.REINSTATE, always, _S.PROCESSING),
)


def allowed_commands(order: OrderState, now: datetime) -> list[str]:
    """Return the commands that the order accepts at this time."""
    return [
        row.command.value
        for row in TRANSITIONS
        if row.status is order.status and row.guard(order, now)
    ]
