"""The order, its fulfilments, and the times of the checks of its payment."""

from markethall.orders.domain.additional_payment import AdditionalPayment
from markethall.orders.domain.amounts_due import shipped_due, total_due
from markethall.orders.domain.fulfilment import (
    FULFILMENT_TRANSITIONS,
    Fulfilment,
    FulfilmentLine,
    build_fulfilment_lines,
)
from markethall.orders.domain.order import Order
from markethall.orders.domain.order_command import OrderCommand
from markethall.orders.domain.order_edit import NewPayment, OrderEdit
from markethall.orders.domain.order_line import OrderLine
from markethall.orders.domain.order_state import split_number
from markethall.orders.domain.payment_checks import (
    CHECK_AGES,
    TimeSpan,
    due_check_spans,
    next_overdue_check,
)
from markethall.orders.domain.payment_statuses import ENDED_PAYMENT_STATUSES
from markethall.orders.domain.shipping_line import ShippingLine
from markethall.orders.domain.timeline import AuditInfo, TimelineEntry
from markethall.orders.domain.transitions import TRANSITIONS, allowed_commands

__all__ = [
    "CHECK_AGES",
    "ENDED_PAYMENT_STATUSES",
    "FULFILMENT_TRANSITIONS",
    "TRANSITIONS",
    "AdditionalPayment",
    "AuditInfo",
    "Fulfilment",
    "FulfilmentLine",
    "NewPayment",
    "Order",
    "OrderCommand",
    "OrderEdit",
    "OrderLine",
    "ShippingLine",
    "TimeSpan",
    "TimelineEntry",
    "allowed_commands",
    "build_fulfilment_lines",
    "due_check_spans",
    "next_overdue_check",
    "shipped_due",
    "split_number",
    "total_due",
]
