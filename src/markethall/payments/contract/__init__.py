"""The calls, events and errors of payments that other contexts import."""

from markethall.payments.contract.errors import InvalidPaymentTransition as InvalidPaymentTransition
from markethall.payments.contract.errors import OperationIdTaken as OperationIdTaken
from markethall.payments.contract.errors import OrderHasPayment as OrderHasPayment
from markethall.payments.contract.errors import PaymentInProgress as PaymentInProgress
from markethall.payments.contract.errors import PaymentNotFound as PaymentNotFound
from markethall.payments.contract.errors import RefundExceedsCaptured as RefundExceedsCaptured
from markethall.payments.contract.errors import UnknownPaymentMethod as UnknownPaymentMethod
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
from markethall.payments.contract.internal import Payments as Payments
from markethall.payments.contract.internal import PaymentState as PaymentState
from markethall.payments.contract.internal import PaymentSummary as PaymentSummary
from markethall.payments.contract.internal import RefundPayment as RefundPayment
from markethall.payments.contract.internal import VoidPayment as VoidPayment
from markethall.payments.contract.statuses import PaymentStatus as PaymentStatus
from markethall.payments.contract.statuses import RefundStatus as RefundStatus
