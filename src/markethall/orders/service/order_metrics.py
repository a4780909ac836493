"""The counters of orders in the metrics."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import Counter

from markethall.orders.contract import (
    OrderCancelled,
    OrderCompleted,
    OrderExpired,
    OrderPaid,
    OrderPlaced,
)
from markethall.shared.messaging.events import Event
from markethall.shared.observability.metrics import ORDERS

# an order that is paid after it has expired is counted as expired and as paid
ORDER_COUNTERS: Final[Mapping[type[Event], Counter]] = {
    OrderPlaced: ORDERS.labels("placed"),
    OrderPaid: ORDERS.labels("paid"),
    OrderCancelled: ORDERS.labels("cancelled"),
    OrderExpired: ORDERS.labels("expired"),
    OrderCompleted: ORDERS.labels("completed"),
}
