"""The statement that stores the first outcome of a charge with all that follows from it."""

import sqlalchemy as sa

from markethall.payments.sql.ledger_statements import insert_posting
from markethall.payments.sql.statements import lock_payment, settle_open_operation
from markethall.payments.sql.tables import payments
from markethall.shared.idempotency.sql import complete_record, lock_open_record
from markethall.shared.messaging.sql.combined_writes import insert_events
from markethall.shared.persistence.postgres import Statement

_outbox, _records = (
    payments.metadata.tables[f"payments.{name}"] for name in ("outbox", "idempotency_record")
)


def _settle(*, has_key: bool) -> Statement:
    """Update payment and operation, and insert event, posting and response: all or nothing.

    Selects a row if it has written. It writes nothing if the version of the payment differs, if the
    operation is not open, or if the key has a response already. The locks are taken in the order of
    the transactions that do the same in several statements: payment, record, chain of postings.
    """
    payment = lock_payment()
    record = lock_open_record(_records, payment) if has_key else payment
    settled = settle_open_operation(sa.exists().select_from(record))
    writes = [insert_events(_outbox, settled), insert_posting(settled).cte("entries")]
    if has_key:
        writes.append(complete_record(_records, settled))
    return Statement(sa.select(settled.c.operation_id).add_cte(*writes))


SETTLE_WITH_KEY = _settle(has_key=True)
SETTLE_WITHOUT_KEY = _settle(has_key=False)
