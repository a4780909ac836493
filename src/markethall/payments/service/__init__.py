"""Use cases of payments."""

from markethall.payments.service.api import PaymentApiService as PaymentApiService
from markethall.payments.service.api import PaymentCommands as PaymentCommands
from markethall.payments.service.change_authorization import (
    ChangeAuthorization as ChangeAuthorization,
)
from markethall.payments.service.charge_payment import ChargePayment as ChargePayment
from markethall.payments.service.daily_reconciliation import (
    DailyReconciliation as DailyReconciliation,
)
from markethall.payments.service.daily_reconciliation import (
    ReconciliationSchedule as ReconciliationSchedule,
)
from markethall.payments.service.event_handlers import PaymentEventHandlers as PaymentEventHandlers
from markethall.payments.service.follow_ups import FollowUps as FollowUps
from markethall.payments.service.integrity import PaymentIntegrity as PaymentIntegrity
from markethall.payments.service.internal import InternalPaymentService as InternalPaymentService
from markethall.payments.service.issue_refund import IssueRefund as IssueRefund
from markethall.payments.service.jobs import PaymentJobs as PaymentJobs
from markethall.payments.service.ledger import LedgerService as LedgerService
from markethall.payments.service.ledger_sums import LedgerSums as LedgerSums
from markethall.payments.service.manual_refunds import ManualRefundService as ManualRefundService
from markethall.payments.service.mark_paid import MarkPaid as MarkPaid
from markethall.payments.service.open_payment import OpenPayments as OpenPayments
from markethall.payments.service.provider_client import ProviderClient as ProviderClient
from markethall.payments.service.provider_connection import ProviderLimits as ProviderLimits
from markethall.payments.service.reconciliations import (
    ReconciliationService as ReconciliationService,
)
from markethall.payments.service.record_fee import FeeResult as FeeResult
from markethall.payments.service.record_fee import RecordFee as RecordFee
from markethall.payments.service.report_comparison import ReportComparison as ReportComparison
from markethall.payments.service.saved_methods import SavedMethods as SavedMethods
from markethall.payments.service.verify_ledger import VerifyLedger as VerifyLedger
from markethall.payments.service.webhooks import WebhookHandler as WebhookHandler
