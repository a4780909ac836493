"""The last step of a charge or refund: store the answer of the provider.

A charge or refund takes three steps: record the operation, call the provider, apply the outcome.
A crash between the steps leaves an open operation. A retry with the same idempotency key, a webhook
or the reconciliation job then applies the outcome. The first of them settles the operation. The
others change nothing unless the provider contradicts the recorded outcome. `domain.outcomes` has
the rules. This module locks and saves the rows, and adds the posting and the event, in the
transaction of the caller.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

import structlog

from markethall.payments.contract.api import PaymentView
from markethall.payments.contract.errors import PaymentNotFound
from markethall.payments.contract.statuses import OperationKind, OperationStatus, PostingKind
from markethall.payments.domain.ledger import Posting, postings_of
from markethall.payments.domain.operation import Failed, Operation, Outcome, Succeeded
from markethall.payments.domain.outcomes import (
    CHARGE_KINDS,
    contradicts,
    correct_operation,
    settle_operation,
)
from markethall.payments.domain.payment import Payment
from markethall.payments.domain.saved_method import SavedMethod
from markethall.payments.ports import ReadStore, Settlement, Store
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.views import to_payment_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import derive_uuid7, new_id
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.pagination import TimeKeyset
from markethall.shared.messaging.events import Event
from markethall.shared.observability.metrics import (
    PAYMENT_AMOUNT,
    PAYMENT_MOVEMENTS,
    PROVIDER_CONFLICTS,
)
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.payments")

V = TypeVar("V", bound=Dto)

_COUNTED_KINDS: Final = (PostingKind.CAPTURE, PostingKind.REFUND)


@dataclass(frozen=True)
class AppliedOutcome:
    """The payment and its operation after an outcome.

    `is_conflict` means that the outcome contradicts the recorded outcome, but that the correction
    is not allowed. The payment and the operation are then unchanged.
    """

    payment: Payment
    operation: Operation
    is_conflict: bool = False


async def lock_payment(store: Store, payment_id: UUID) -> Payment:
    """Return the payment, and lock its row. Raises PaymentNotFound."""
    payment = await store.get_payment_for_update(payment_id)
    if payment is None:
        raise PaymentNotFound(payment_id=str(payment_id))
    return payment


async def store_outcome(
    database: Database[ReadStore, Store],
    ctx: CallContext,
    submitted: tuple[Operation, Outcome | None],
    attempt: IdempotentCommand,
    clock: Clock,
    to_view: Callable[[AppliedOutcome], V],
) -> V:
    """Apply the answer of the provider, and store the response if the outcome is final.

    Raises PaymentNotFound, PaymentInProgress.
    """
    operation, outcome = submitted
    async with database.transaction() as store:
        applied = await apply_outcome(store, ctx, operation.operation_id, outcome, clock())
        if applied is None:
            raise PaymentNotFound(payment_id=str(operation.payment_id))
        view = to_view(applied)
        attempt.is_final = not applied.operation.is_open
        if attempt.is_final:
            await store.store_response(attempt, view)
    return view


async def apply_outcome(
    store: Store, ctx: CallContext, operation_id: UUID, outcome: Outcome | None, now: datetime
) -> AppliedOutcome | None:
    """Apply the answer of the provider.

    An open operation is settled, and a settled one is corrected when the outcome contradicts it.
    `outcome` is None in two cases. If the provider gave no outcome, a pending operation becomes
    unknown. If a retry did not call the provider, because the operation was not pending, nothing
    changes. Return None when the operation does not exist. Raises PaymentInProgress when a
    correction has to wait for another charge.
    """
    locked = await store.get_payment_and_operation_for_update(operation_id)
    if locked is None:
        return None
    payment, operation = locked
    if operation.is_open:
        if outcome or operation.status is not OperationStatus.UNKNOWN:
            event = settle_operation(payment, operation, outcome, now)
            _record_fee(operation, outcome, now)
            await store.save_operation(payment, operation)
            _log_rejection(operation)
            await _publish_effects(store, ctx, operation, event)
            await _save_method(store, locked, outcome, now)
    elif (
        outcome
        and contradicts(payment, operation, outcome)
        and not await _is_superseded_failure(store, operation, outcome)
    ):
        return await _correct(store, ctx, locked, outcome, now)
    return AppliedOutcome(payment, operation)


def _log_rejection(operation: Operation) -> None:
    """Log a rejected capture or void, because staff must get or release the money otherwise."""
    if operation.status is not OperationStatus.FAILED:
        return
    fields = {
        "payment_id": str(operation.payment_id),
        "operation_id": str(operation.operation_id),
        "failure_code": operation.failure_code,
    }
    if operation.kind is OperationKind.CAPTURE:
        log.error("payment.capture_failed", **fields)
    elif operation.kind is OperationKind.VOID:
        log.error("payment.void_failed", **fields)


async def _is_superseded_failure(store: Store, operation: Operation, outcome: Outcome) -> bool:
    """Tell whether a later charge has replaced the charge whose action has failed.

    The later charge has, for example, another payment method. The payment waits for the action of
    the later charge, so the failure must not end the payment.
    """
    if operation.status is not OperationStatus.FAILED or not isinstance(outcome, Failed):
        return False
    position = TimeKeyset(operation.created_at, operation.operation_id)
    for kind in CHARGE_KINDS:
        if await store.list_operations(operation.payment_id, kind, position, 1):
            return True
    return False


async def _correct(
    store: Store,
    ctx: CallContext,
    locked: tuple[Payment, Operation],
    outcome: Outcome,
    now: datetime,
) -> AppliedOutcome:
    payment, operation = locked
    details = {
        "payment_id": str(payment.payment_id),
        "operation_id": str(operation.operation_id),
        "recorded": operation.status.value,
        "payment_status": payment.status.value,
        "outcome": type(outcome).__name__,
    }
    event = correct_operation(payment, operation, outcome, now)
    if event is None:
        PROVIDER_CONFLICTS.labels(operation.kind.value).inc()
        log.error("payment.outcome_conflict", **details)
        return AppliedOutcome(payment, operation, is_conflict=True)
    log.warning("payment.outcome_corrected", **details)
    _record_fee(operation, outcome, now)
    await store.save_corrected_operation(payment, operation)
    await _publish_effects(store, ctx, operation, event)
    await _save_method(store, locked, outcome, now)
    return AppliedOutcome(payment, operation)


def _record_fee(operation: Operation, outcome: Outcome | None, now: datetime) -> None:
    if isinstance(outcome, Succeeded) and outcome.fee:
        operation.record_fee(outcome.fee, now)


async def _save_method(
    store: Store, locked: tuple[Payment, Operation], outcome: Outcome | None, now: datetime
) -> None:
    """Save the method of a charge that has succeeded, if the customer wanted it."""
    payment, operation = locked
    if not isinstance(outcome, Succeeded) or not outcome.saved_method:
        return
    if operation.saves_method and operation.customer:
        saved = SavedMethod(
            saved_method_id=new_id(),
            user_id=payment.user_id,
            provider=operation.provider,
            customer=operation.customer,
            details=outcome.saved_method,
            created_at=now,
        )
        await store.add_saved_method(saved)


async def _publish_effects(
    store: Store, ctx: CallContext, operation: Operation, event: Event | None
) -> None:
    if event:
        await store.publish(event, ctx)
    # last, because the posting locks its hash chain until the commit
    await add_postings(store, postings_of(operation))


async def refund_second_charge(
    provider: ProviderClient, charge: Operation, reference: str, now: datetime
) -> Outcome | None:
    """Refund a charge that has succeeded although another charge had captured the payment.

    The whole charge is refunded, and an authorization is voided. The ledger has no posting of this
    charge or of its refund, because it records only the charge that captured the payment.
    Return None if the provider gave no answer.

    `reference` is the id of the charge at the provider. A repeated call refunds nothing more.
    """
    refund_id = derive_uuid7(charge.operation_id, "second charge")
    charge = replace(charge, provider_reference=reference)
    refund = await provider.take_back(charge, refund_id, now)
    if refund is None:
        return None
    operation_id = str(charge.operation_id)
    if isinstance(refund, Succeeded):
        log.warning("payment.second_charge_refunded", operation_id=operation_id)
    else:
        log.error("payment.second_charge_not_refunded", operation_id=operation_id)
    return refund


async def try_settle_charge(
    database: Database[ReadStore, Store],
    ctx: CallContext,
    charge: tuple[Payment, Operation],
    outcome: Outcome | None,
    attempt: IdempotentCommand,
    now: datetime,
) -> PaymentView | None:
    """Store the outcome and the response in one statement, in the most frequent case.

    A charge that succeeds at once changes nothing but its payment and operation, and adds one event
    and one posting. All other outcomes, and a payment that has changed meanwhile, need the
    transaction of `apply_outcome`, which locks the rows first. For them, return None.
    """
    settlement = _build_settlement(charge, outcome, now)
    if settlement is None:
        return None
    view = to_payment_view(settlement.payment)
    async with database.autocommit() as store:
        if not await store.try_settle(settlement, ctx, attempt, view):
            return None
        count_posting(store, settlement.posting)
    attempt.is_final = True
    return view


def _build_settlement(
    charge: tuple[Payment, Operation], outcome: Outcome | None, now: datetime
) -> Settlement | None:
    if not isinstance(outcome, Succeeded) or outcome.saved_method or outcome.fee:
        return None
    # copies, because the caller settles the originals if this function returns None
    payment, operation = replace(charge[0]), replace(charge[1])
    if not operation.is_open:
        return None
    event, postings = settle_operation(payment, operation, outcome, now), postings_of(operation)
    if event is None or len(postings) != 1:
        return None
    return Settlement(payment, operation, event, postings[0])


async def add_postings(store: Store, postings: Iterable[Posting]) -> None:
    """Add the postings. The metrics count captures and refunds if the transaction commits."""
    for posting in postings:
        await store.add_posting(posting)
        count_posting(store, posting)


def count_posting(store: Store, posting: Posting) -> None:
    """Count the posting in the metrics if the transaction commits. Only some kinds are counted."""
    if posting.kind not in _COUNTED_KINDS:
        return
    # both kinds get a value for the currency, because Prometheus cannot subtract a series that does
    # not exist
    for kind in _COUNTED_KINDS:
        PAYMENT_AMOUNT.labels(kind.value, posting.currency)
        PAYMENT_MOVEMENTS.labels(kind.value, posting.currency)
    labels = posting.kind.value, posting.currency
    store.count_on_commit(PAYMENT_MOVEMENTS.labels(*labels), 1)
    store.count_on_commit(PAYMENT_AMOUNT.labels(*labels), posting.moved_amount)
