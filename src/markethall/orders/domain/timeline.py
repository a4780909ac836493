"""The timeline of an order."""

from dataclasses import dataclass
from datetime import datetime

from markethall.orders.contract import OrderFulfilmentStatus, OrderPaymentStatus, OrderStatus


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
