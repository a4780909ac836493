"""Payments, in this process."""

from markethall.payments.service.charges import ChargePayment
from markethall.payments.service.desk import PaymentApiService
from markethall.payments.service.payments import InternalPaymentService
from markethall.payments.service.refunds import IssueRefund
from markethall.payments.service.sweeps import PaymentJobs
from markethall.payments.service.till import ProviderClient, ProviderTimeouts
from markethall.payments.service.webhooks import WebhookHandler

__all__ = [
    "ChargePayment",
    "ProviderTimeouts",
    "PaymentApiService",
    "InternalPaymentService",
    "IssueRefund",
    "PaymentJobs",
    "ProviderClient",
    "WebhookHandler",
]
