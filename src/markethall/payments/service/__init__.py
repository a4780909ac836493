"""Payments, in this process."""

from markethall.payments.service.charges import Charges
from markethall.payments.service.desk import PaymentDeskService
from markethall.payments.service.payments import PaymentService
from markethall.payments.service.refunds import Refunds
from markethall.payments.service.sweeps import Sweeps
from markethall.payments.service.till import Patience, Till
from markethall.payments.service.webhooks import WebhookIntake

__all__ = [
    "Charges",
    "Patience",
    "PaymentDeskService",
    "PaymentService",
    "Refunds",
    "Sweeps",
    "Till",
    "WebhookIntake",
]
