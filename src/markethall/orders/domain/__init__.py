"""The order, its fulfilments, and the times of the checks of its payment."""

from markethall.orders.domain.fulfilment import FULFILMENT_TRANSITIONS as FULFILMENT_TRANSITIONS
from markethall.orders.domain.fulfilment import Fulfilment as Fulfilment
from markethall.orders.domain.fulfilment import FulfilmentLine as FulfilmentLine
from markethall.orders.domain.fulfilment import build_fulfilment_lines as build_fulfilment_lines
from markethall.orders.domain.order import Order as Order
from markethall.orders.domain.order_edit import AdditionalPayment as AdditionalPayment
from markethall.orders.domain.order_edit import NewPayment as NewPayment
from markethall.orders.domain.order_edit import OrderEdit as OrderEdit
from markethall.orders.domain.order_line import OrderLine as OrderLine
from markethall.orders.domain.order_line import ShippingLine as ShippingLine
from markethall.orders.domain.order_state import (
    ENDED_PAYMENT_STATUSES as ENDED_PAYMENT_STATUSES,
)
from markethall.orders.domain.order_state import AuditInfo as AuditInfo
from markethall.orders.domain.order_state import TimelineEntry as TimelineEntry
from markethall.orders.domain.order_state import split_number as split_number
from markethall.orders.domain.payment_checks import CHECK_AGES as CHECK_AGES
from markethall.orders.domain.payment_checks import TimeSpan as TimeSpan
from markethall.orders.domain.payment_checks import due_check_spans as due_check_spans
from markethall.orders.domain.payment_checks import next_overdue_check as next_overdue_check
from markethall.orders.domain.transitions import TRANSITIONS as TRANSITIONS
from markethall.orders.domain.transitions import OrderCommand as OrderCommand
from markethall.orders.domain.transitions import allowed_commands as allowed_commands
