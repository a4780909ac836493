"""Record the fee of an operation that becomes known after the operation has succeeded."""

from enum import StrEnum
from uuid import UUID

import structlog

from markethall.payments.contract import OperationStatus
from markethall.payments.domain import Operation, fee_postings_of
from markethall.payments.ports import ReadStore, Store
from markethall.payments.service.add_postings import add_postings
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.payments")


class FeeResult(StrEnum):
    RECORDED = "recorded"
    # the same fee was recorded before
    UNCHANGED = "unchanged"
    # another fee was recorded before; it stays, because postings are never changed
    DIFFERS = "differs"
    # there is no such operation, or it has not succeeded
    NO_SUCCEEDED_OPERATION = "no_succeeded_operation"


class RecordFee:
    def __init__(self, database: Database[ReadStore, Store], clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record_fee(self, operation_id: UUID, fee: Money) -> FeeResult:
        """Record the fee and add its posting. A repetition changes nothing.

        The fee may be in another currency than the operation. A negative fee is one that the
        provider returns. A fee of zero has no posting.
        """
        async with self._database.transaction() as store:
            locked = await store.get_payment_and_operation_for_update(operation_id)
            if locked is None or locked[1].status is not OperationStatus.SUCCEEDED:
                return FeeResult.NO_SUCCEEDED_OPERATION
            operation = locked[1]
            if operation.fee is not None:
                return _compare(operation, fee)
            operation.record_fee(fee, self._clock())
            await store.save_fee(operation)
            await add_postings(store, fee_postings_of(operation))
        return FeeResult.RECORDED


def _compare(operation: Operation, fee: Money) -> FeeResult:
    if operation.fee == fee:
        return FeeResult.UNCHANGED
    log.error(
        "ledger.fee_differs",
        operation_id=str(operation.operation_id),
        recorded=operation.fee_amount,
        recorded_currency=operation.fee_currency,
        reported=fee.amount,
        reported_currency=fee.currency,
    )
    return FeeResult.DIFFERS
