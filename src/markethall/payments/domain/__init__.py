"""Payments, their operations at the provider, and the ledger."""

from markethall.payments.domain.ledger import CUSTOMER_PAYMENTS_ACCOUNT as CUSTOMER_PAYMENTS_ACCOUNT
from markethall.payments.domain.ledger import Posting as Posting
from markethall.payments.domain.ledger import account_kind as account_kind
from markethall.payments.domain.ledger import fee_postings_of as fee_postings_of
from markethall.payments.domain.ledger import postings_of as postings_of
from markethall.payments.domain.ledger_checks import ChainCheck as ChainCheck
from markethall.payments.domain.ledger_checks import (
    compare_with_operations as compare_with_operations,
)
from markethall.payments.domain.operation import FREE_METHOD as FREE_METHOD
from markethall.payments.domain.operation import ActionRequired as ActionRequired
from markethall.payments.domain.operation import Failed as Failed
from markethall.payments.domain.operation import Operation as Operation
from markethall.payments.domain.operation import Outcome as Outcome
from markethall.payments.domain.operation import Succeeded as Succeeded
from markethall.payments.domain.outcomes import CHARGE_KINDS as CHARGE_KINDS
from markethall.payments.domain.outcomes import captured_event as captured_event
from markethall.payments.domain.outcomes import contradicts as contradicts
from markethall.payments.domain.outcomes import correct_operation as correct_operation
from markethall.payments.domain.outcomes import dispute_changed_event as dispute_changed_event
from markethall.payments.domain.outcomes import ended_event as ended_event
from markethall.payments.domain.outcomes import settle_operation as settle_operation
from markethall.payments.domain.outcomes import status_changed_event as status_changed_event
from markethall.payments.domain.payment import (
    OPEN_CHANGE_RETRY_SECONDS as OPEN_CHANGE_RETRY_SECONDS,
)
from markethall.payments.domain.payment import Payment as Payment
from markethall.payments.domain.payment_transitions import (
    ENDED_UNPAID_STATUSES as ENDED_UNPAID_STATUSES,
)
from markethall.payments.domain.payment_transitions import PAYABLE_STATUSES as PAYABLE_STATUSES
from markethall.payments.domain.payment_transitions import TRANSITIONS as TRANSITIONS
from markethall.payments.domain.payment_transitions import PaymentCommand as PaymentCommand
from markethall.payments.domain.posting_chain import CHAIN_COUNT as CHAIN_COUNT
from markethall.payments.domain.posting_chain import GENESIS_HASH as GENESIS_HASH
from markethall.payments.domain.posting_chain import ChainPosition as ChainPosition
from markethall.payments.domain.posting_chain import RecordedPosting as RecordedPosting
from markethall.payments.domain.posting_chain import canonical_content as canonical_content
from markethall.payments.domain.posting_chain import chain_of as chain_of
from markethall.payments.domain.posting_chain import next_position as next_position
from markethall.payments.domain.saved_method import MethodDetails as MethodDetails
from markethall.payments.domain.saved_method import ProviderCustomer as ProviderCustomer
from markethall.payments.domain.saved_method import SavedMethod as SavedMethod
