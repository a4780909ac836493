"""The contract of payments: DTOs, errors, events and Protocols."""

from markethall.payments.contract.api import AwaitTransferAction as AwaitTransferAction
from markethall.payments.contract.api import NextAction as NextAction
from markethall.payments.contract.api import OperationView as OperationView
from markethall.payments.contract.api import PaymentApi as PaymentApi
from markethall.payments.contract.api import PaymentMethodQuery as PaymentMethodQuery
from markethall.payments.contract.api import PaymentMethodsView as PaymentMethodsView
from markethall.payments.contract.api import PaymentMethodView as PaymentMethodView
from markethall.payments.contract.api import PaymentQuery as PaymentQuery
from markethall.payments.contract.api import PaymentView as PaymentView
from markethall.payments.contract.api import ProviderSdkAction as ProviderSdkAction
from markethall.payments.contract.api import RedirectAction as RedirectAction
from markethall.payments.contract.api import WebhookReceipt as WebhookReceipt
from markethall.payments.contract.disputes import PaymentDispute as PaymentDispute
from markethall.payments.contract.errors import AmountExceedsDue as AmountExceedsDue
from markethall.payments.contract.errors import CaptureExceedsAuthorized as CaptureExceedsAuthorized
from markethall.payments.contract.errors import InvalidPaymentTransition as InvalidPaymentTransition
from markethall.payments.contract.errors import OperationIdTaken as OperationIdTaken
from markethall.payments.contract.errors import OrderHasPayment as OrderHasPayment
from markethall.payments.contract.errors import PaymentInProgress as PaymentInProgress
from markethall.payments.contract.errors import PaymentNotFound as PaymentNotFound
from markethall.payments.contract.errors import ReconciliationNotFound as ReconciliationNotFound
from markethall.payments.contract.errors import RefundExceedsCaptured as RefundExceedsCaptured
from markethall.payments.contract.errors import RefundNotFound as RefundNotFound
from markethall.payments.contract.errors import ReportFileInvalid as ReportFileInvalid
from markethall.payments.contract.errors import (
    SavedPaymentMethodNotFound as SavedPaymentMethodNotFound,
)
from markethall.payments.contract.errors import UnknownPaymentMethod as UnknownPaymentMethod
from markethall.payments.contract.errors import UnknownProvider as UnknownProvider
from markethall.payments.contract.errors import UnknownReportProvider as UnknownReportProvider
from markethall.payments.contract.errors import UnsupportedByProvider as UnsupportedByProvider
from markethall.payments.contract.errors import WebhookSignatureInvalid as WebhookSignatureInvalid
from markethall.payments.contract.events import DisputeChanged as DisputeChanged
from markethall.payments.contract.events import PaymentCaptured as PaymentCaptured
from markethall.payments.contract.events import PaymentEvent as PaymentEvent
from markethall.payments.contract.events import PaymentFailed as PaymentFailed
from markethall.payments.contract.events import PaymentPartiallyCaptured as PaymentPartiallyCaptured
from markethall.payments.contract.events import PaymentRefunded as PaymentRefunded
from markethall.payments.contract.events import PaymentStatusChanged as PaymentStatusChanged
from markethall.payments.contract.internal import ActivatePayments as ActivatePayments
from markethall.payments.contract.internal import CapturePayment as CapturePayment
from markethall.payments.contract.internal import ListPaymentStates as ListPaymentStates
from markethall.payments.contract.internal import OpenPayment as OpenPayment
from markethall.payments.contract.internal import PaymentList as PaymentList
from markethall.payments.contract.internal import Payments as Payments
from markethall.payments.contract.internal import PaymentState as PaymentState
from markethall.payments.contract.internal import PaymentStates as PaymentStates
from markethall.payments.contract.internal import PaymentSummary as PaymentSummary
from markethall.payments.contract.internal import RefundPayment as RefundPayment
from markethall.payments.contract.internal import RefundView as RefundView
from markethall.payments.contract.internal import VoidPayment as VoidPayment
from markethall.payments.contract.ledger import LedgerAccountBalance as LedgerAccountBalance
from markethall.payments.contract.ledger import LedgerApi as LedgerApi
from markethall.payments.contract.ledger import LedgerChainHead as LedgerChainHead
from markethall.payments.contract.ledger import LedgerFinding as LedgerFinding
from markethall.payments.contract.ledger import LedgerReport as LedgerReport
from markethall.payments.contract.ledger import PostingEntryView as PostingEntryView
from markethall.payments.contract.ledger import PostingFilters as PostingFilters
from markethall.payments.contract.ledger import PostingQuery as PostingQuery
from markethall.payments.contract.ledger import PostingView as PostingView
from markethall.payments.contract.ledger import TrialBalance as TrialBalance
from markethall.payments.contract.ledger import TrialBalanceQuery as TrialBalanceQuery
from markethall.payments.contract.ledger import TrialBalanceRow as TrialBalanceRow
from markethall.payments.contract.ledger import TrialBalanceTotal as TrialBalanceTotal
from markethall.payments.contract.saved_methods import (
    SavedPaymentMethodView as SavedPaymentMethodView,
)
from markethall.payments.contract.statuses import LedgerAccountKind as LedgerAccountKind
from markethall.payments.contract.statuses import LedgerCheck as LedgerCheck
from markethall.payments.contract.statuses import LedgerProblem as LedgerProblem
from markethall.payments.contract.statuses import OperationKind as OperationKind
from markethall.payments.contract.statuses import OperationStatus as OperationStatus
from markethall.payments.contract.statuses import PaymentStatus as PaymentStatus
from markethall.payments.contract.statuses import PostingKind as PostingKind
from markethall.payments.contract.statuses import RefundStatus as RefundStatus
