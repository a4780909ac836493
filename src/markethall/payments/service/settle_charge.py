"""Settle a charge in one statement, in the most frequent case.

A charge that succeeds at once changes nothing but its payment and operation, and adds one event and
one posting. All other outcomes, and a payment that has changed meanwhile, need the transaction of
`apply_outcome`, which locks the rows first.
"""

from dataclasses import replace
from datetime import datetime

from markethall.payments.contract import PaymentView
from markethall.payments.domain import (
    Operation,
    Outcome,
    Payment,
    Succeeded,
    postings_of,
    settle_operation,
)
from markethall.payments.ports import ReadStore, Settlement, Store
from markethall.payments.service.add_postings import count_posting
from markethall.payments.service.views import to_payment_view
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.persistence.database import Database


async def try_settle_charge(
    database: Database[ReadStore, Store],
    ctx: CallContext,
    charge: tuple[Payment, Operation],
    outcome: Outcome | None,
    attempt: IdempotentCommand,
    now: datetime,
) -> PaymentView | None:
    """Store the outcome and the response. Return None if the caller must call `apply_outcome`."""
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
