"""The database work of payments: statement counts, indexes, and held connections.

No connection is held during a provider call.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from markethall.payments.sql import saved_methods, statements, webhook_statements
from markethall.payments.sql.tables import operations
from markethall.shared.observability.metrics import REGISTRY
from markethall.shared.persistence.postgres import Postgres, Statement
from tests.payments.conftest import (
    ORDERS_CONTEXT,
    STAFF,
    START,
    PaymentsApp,
    build_payments_app,
)


@pytest.fixture
def payments_app(postgres: Postgres) -> PaymentsApp:
    return build_payments_app("sql", postgres)


async def statements_of(act: Callable[[], Awaitable[Any]]) -> int:
    before = REGISTRY.get_sample_value("markethall_db_statements_total")
    await act()
    after = REGISTRY.get_sample_value("markethall_db_statements_total")
    assert before is not None
    assert after is not None
    return int(after - before)


async def test_opening_and_activating_take_one_statement_each(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()

    assert await statements_of(lambda: payments_app.open(activate=False)) == 1
    assert await statements_of(lambda: payments_app.activate(payment)) == 1


async def test_reading_takes_one_statement(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()

    assert (
        await statements_of(lambda: payments_app.payment_api.get_payment(STAFF, payment.payment_id))
        == 1
    )


async def test_paying_takes_five_statements_with_key_and_provider(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.open()

    assert await statements_of(lambda: payments_app.confirm_with_key(payment, "key")) == 5


async def test_refunding_takes_ten_statements_with_provider(payments_app: PaymentsApp) -> None:
    payment = await payments_app.paid()

    assert await statements_of(lambda: payments_app.refund(payment, 1)) == 10


async def test_cancelling_takes_three_statements(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()

    async def cancel() -> None:
        await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)

    assert await statements_of(cancel) == 3


async def test_idle_job_run_takes_eight_statements(payments_app: PaymentsApp) -> None:
    assert await statements_of(payments_app.run_periodic_jobs) == 8


async def test_no_connection_is_held_during_provider_call(postgres: Postgres) -> None:
    held: list[int] = []

    async def sleep(_: float) -> None:
        held.append(postgres.connections_in_use)

    payments_app = build_payments_app("sql", postgres, sleep)
    await payments_app.confirm(await payments_app.open(), "sandbox_slow")

    assert held == [0]


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (statements.LIST_PAYMENTS_TO_REFUND, "ix_payment_money_after_end"),
        (statements.EXPIRE_PAYMENTS, "ix_payment_payable"),
        (statements.CLAIM_DUE_OPERATIONS, "ix_operation_due"),
        (statements.CLAIM_FOLLOW_UPS, "ix_operation_follow_up"),
        (saved_methods.CLAIM_METHODS_TO_DETACH, "ix_saved_method_detach_at"),
        (webhook_statements.LIST_APPLICABLE_EVENTS, "ix_webhook_event_pending"),
        (webhook_statements.IGNORE_UNMATCHED_EVENTS, "ix_webhook_event_pending"),
    ],
)
async def test_job_queries_use_indexes(
    payments_app: PaymentsApp, postgres: Postgres, statement: Statement, index: str
) -> None:
    now = payments_app.clock()
    values = {"now": now, "next_due_at": now + timedelta(seconds=15), "limit": 10}
    values |= {"provider": "sandbox", "received_before": now}
    values |= {"followed_until": now, "next_at": now, "after": UUID(int=0)}

    async with postgres.transaction() as connection:
        driver = connection._driver
        await driver.execute("SET LOCAL enable_seqscan = off")
        sql, arguments = statement.bind(values)
        rows = await driver.fetch(f"EXPLAIN {sql}", *arguments)

    assert index in "\n".join(row[0] for row in rows)


# copies of the settled refund, each an hour older than the one before
OLD_REFUNDS = """
INSERT INTO payments.operation (operation_id, status, created_at, {columns})
SELECT gen_random_uuid(), status, created_at - n * interval '1 hour', {columns}
FROM payments.operation, generate_series(1, 2000) n WHERE kind = 'refund' AND status = 'succeeded'
"""


@pytest.mark.parametrize("has_keyset", [False, True])
async def test_pending_refunds_are_found_without_reading_the_settled_ones(
    payments_app: PaymentsApp, postgres: Postgres, *, has_keyset: bool
) -> None:
    await payments_app.refund(await payments_app.paid(), 400)
    other_columns = [
        column.name
        for column in operations.c
        if column.name not in {"operation_id", "status", "created_at"}
    ]
    waiting = await payments_app.confirm(await payments_app.open(), "manual:bank_transfer")
    pending = await payments_app.refund(await payments_app.mark_paid(waiting, 1999), 400)
    statement = statements.list_refunds(filter_columns=("status",), has_keyset=has_keyset)
    values = {"status": "pending", "limit": 100}
    values |= {"after_time": START - timedelta(days=365), "after_id": pending.refund_id}

    async with postgres.transaction() as connection:
        driver = connection._driver
        await driver.execute(OLD_REFUNDS.format(columns=", ".join(other_columns)))
        await driver.execute("ANALYZE payments.operation")
        sql, arguments = statement.bind(values)
        rows = await driver.fetch(f"EXPLAIN ANALYZE {sql}", *arguments)

    plan = "\n".join(row[0] for row in rows)
    assert "ix_operation_refund_status" in plan
    assert "Rows Removed by Filter" not in plan
