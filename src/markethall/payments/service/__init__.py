"""Use cases of payments."""

from markethall.payments.service.api import PaymentApiService, PaymentCommands
from markethall.payments.service.change_authorization import ChangeAuthorization
from markethall.payments.service.charge_payment import ChargePayment
from markethall.payments.service.daily_reconciliation import (
    DailyReconciliation,
    ReconciliationSchedule,
)
from markethall.payments.service.event_handlers import PaymentEventHandlers
from markethall.payments.service.follow_ups import FollowUps
from markethall.payments.service.integrity import PaymentIntegrity
from markethall.payments.service.internal import InternalPaymentService
from markethall.payments.service.issue_refund import IssueRefund
from markethall.payments.service.jobs import PaymentJobs
from markethall.payments.service.ledger import LedgerService
from markethall.payments.service.ledger_sums import LedgerSums
from markethall.payments.service.manual_refunds import ManualRefundService
from markethall.payments.service.mark_paid import MarkPaid
from markethall.payments.service.open_payment import OpenPayments
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.provider_connection import ProviderLimits
from markethall.payments.service.reconciliations import ReconciliationService
from markethall.payments.service.record_fee import FeeResult, RecordFee
from markethall.payments.service.report_comparison import ReportComparison
from markethall.payments.service.saved_methods import SavedMethods
from markethall.payments.service.verify_ledger import VerifyLedger
from markethall.payments.service.webhooks import WebhookHandler

__all__ = [
    "ChangeAuthorization",
    "ChargePayment",
    "DailyReconciliation",
    "FeeResult",
    "FollowUps",
    "InternalPaymentService",
    "IssueRefund",
    "LedgerService",
    "LedgerSums",
    "ManualRefundService",
    "MarkPaid",
    "OpenPayments",
    "PaymentApiService",
    "PaymentCommands",
    "PaymentEventHandlers",
    "PaymentIntegrity",
    "PaymentJobs",
    "ProviderClient",
    "ProviderLimits",
    "ReconciliationSchedule",
    "ReconciliationService",
    "RecordFee",
    "ReportComparison",
    "SavedMethods",
    "VerifyLedger",
    "WebhookHandler",
]
