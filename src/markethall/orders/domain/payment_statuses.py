"""How the payment status of an order follows from the status of its payment."""

from collections.abc import Mapping
from typing import Final

from markethall.orders.contract import OrderPaymentStatus

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
