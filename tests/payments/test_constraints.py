"""The database constraints and triggers of the schema `payments`."""

import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from markethall.shared.kernel.ids import new_id
from tests.conftest import plain
from tests.payments.conftest import STAFF, PaymentsApp, build_payments_app

Connection = Any

PAYMENT: dict[str, Any] = {
    "status": "created",
    "amount": 1000,
    "authorized": 0,
    "captured": 0,
    "refunded": 0,
    "refunding": 0,
    "currency": "EUR",
    "provider": "sandbox",
    "created_at": "2026-11-21T12:00:00Z",
    "expires_at": "2026-11-21T12:15:00Z",
    "is_activated": True,
    "is_additional": False,
    "version": 1,
}
CAPTURED = {"status": "captured", "authorized": 1000, "captured": 1000}
AUTHORIZED = {"status": "authorized", "authorized": 1000}
PARTLY_PAID = {"status": "requires_action", "authorized": 300, "captured": 300}
OPERATION: dict[str, Any] = {
    "kind": "charge",
    "status": "pending",
    "amount": 1000,
    "currency": "EUR",
    "provider": "sandbox",
    "method": "sandbox_ok",
    "reason": "",
    "is_final": False,
    "saves_method": False,
    "created_at": "2026-11-21T12:00:00Z",
    "due_at": "2026-11-21T12:00:15Z",
}
_sequences = count(1)
SETTLED = {"settled_at": "2026-11-21T12:00:01Z"}


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(plain(database_url))
    yield connection
    await connection.close()


async def insert(connection: Connection, table: str, **row: Any) -> None:
    """Insert a row. Postgres converts the values to the column types of the table."""
    text = json.dumps(row, default=str)
    await connection.execute(
        f"INSERT INTO payments.{table} SELECT * FROM jsonb_populate_record"
        f"(NULL::payments.{table}, $1::jsonb)",
        text,
    )


async def add_payment(connection: Connection, **changes: Any) -> UUID:
    payment_id = new_id()
    ids = {"payment_id": payment_id, "order_id": new_id(), "user_id": new_id()}
    await insert(connection, "payment", **PAYMENT | ids | changes)
    return payment_id


async def add_operation(connection: Connection, payment_id: UUID, **changes: Any) -> UUID:
    operation_id = new_id()
    ids = {"operation_id": operation_id, "payment_id": payment_id}
    await insert(connection, "operation", **OPERATION | ids | changes)
    return operation_id


async def add_posting(
    connection: Connection, operation: tuple[UUID, UUID], *entries: tuple[str, str, int]
) -> UUID:
    posting_id = new_id()
    payment_id, operation_id = operation
    async with connection.transaction():
        await insert(
            connection,
            "posting",
            posting_id=posting_id,
            payment_id=payment_id,
            operation_id=operation_id,
            kind="capture",
            created_at="2026-11-21T12:00:00Z",
            chain=0,
            sequence=next(_sequences),
            hash="\\x" + "00" * 32,
        )
        for account, currency, amount in entries:
            await insert(
                connection,
                "entry",
                posting_id=posting_id,
                account=account,
                currency=currency,
                amount=amount,
            )
    return posting_id


@pytest.fixture
async def operation(connection: Connection) -> tuple[UUID, UUID]:
    """Insert a payment and its charge. Return their ids."""
    payment_id = await add_payment(connection)
    return payment_id, await add_operation(connection, payment_id)


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"amount": -1}, "authorized"),
        ({"authorized": 1001}, "authorized"),
        ({"authorized": -1}, "authorized"),
        (CAPTURED | {"captured": 1001}, "captured"),
        (CAPTURED | {"authorized": 999}, "captured"),
        ({"captured": -1}, "captured"),
        (CAPTURED | {"refunded": 1001}, "refunded"),
        (CAPTURED | {"refunded": 600, "refunding": 401}, "refunded"),
        (CAPTURED | {"refunded": -1, "refunding": 1}, "refunded"),
        (CAPTURED | {"refunded": 1, "refunding": -1}, "refunded"),
        ({"refunded": 1}, "refunded"),
        (CAPTURED | {"status": "failed"}, "captured_by_charge"),
        (CAPTURED | {"charge_id": None}, "captured_by_charge"),
        (PARTLY_PAID | {"charge_id": None}, "captured_by_charge"),
        (PARTLY_PAID | {"status": "created"}, "captured_by_charge"),
        (PARTLY_PAID | {"status": "processing"}, "captured_by_charge"),
        (PARTLY_PAID | {"captured": 1000, "authorized": 1000}, "captured_by_charge"),
        (AUTHORIZED | {"charge_id": None}, "authorized_by_charge"),
        (AUTHORIZED | {"captured": 1000}, "authorized_by_charge"),
        (CAPTURED | {"open_change_id": new_id()}, "change_of_authorization"),
        ({"status": "paid"}, "status"),
        ({"order_id": None}, "opened_or_tombstone"),
        ({"user_id": None}, "opened_or_tombstone"),
        ({"currency": None}, "opened_or_tombstone"),
        ({"expires_at": None}, "opened_or_tombstone"),
        ({"order_id": None, "status": "cancelled"}, "opened_or_tombstone"),
    ],
)
async def test_inconsistent_payment_is_rejected(
    connection: Connection, changes: dict[str, Any], constraint: str
) -> None:
    values = {"charge_id": new_id()} | changes

    with pytest.raises(asyncpg.CheckViolationError) as error:
        await add_payment(connection, **values)

    assert error.value.constraint_name == f"ck_payment_{constraint}"


async def test_valid_payment_is_accepted(connection: Connection) -> None:
    await add_payment(connection, **AUTHORIZED, charge_id=new_id(), open_change_id=new_id())
    await add_payment(connection, **AUTHORIZED, charge_id=new_id(), captured=400, refunded=100)
    for status in ("requires_action", "failed", "voided", "cancelled", "expired"):
        await add_payment(connection, **PARTLY_PAID | {"status": status}, charge_id=new_id())
    await add_payment(connection, **CAPTURED, refunded=400, refunding=600, charge_id=new_id())
    refunded_after_end = CAPTURED | {"status": "expired", "refunding": 400}
    await add_payment(connection, **refunded_after_end, charge_id=new_id())
    await add_payment(
        connection, order_id=None, user_id=None, currency=None, status="cancelled", amount=0
    )


async def test_an_order_has_one_payment(connection: Connection) -> None:
    order_id = new_id()
    await add_payment(connection, order_id=order_id)

    with pytest.raises(asyncpg.UniqueViolationError):
        await add_payment(connection, order_id=order_id)


async def test_a_payment_has_one_succeeded_charge(connection: Connection) -> None:
    payment_id = await add_payment(connection)
    await add_operation(connection, payment_id, status="succeeded", **SETTLED)

    with pytest.raises(asyncpg.UniqueViolationError) as error:
        await add_operation(connection, payment_id, status="succeeded", **SETTLED)

    assert error.value.constraint_name == "uq_operation_one_succeeded_charge"


@pytest.mark.parametrize("second", ["pending", "unknown"])
async def test_a_payment_has_one_open_charge(
    connection: Connection, operation: tuple[UUID, UUID], second: str
) -> None:
    with pytest.raises(asyncpg.UniqueViolationError) as error:
        await add_operation(connection, operation[0], status=second)

    assert error.value.constraint_name == "uq_operation_one_open_charge"


@pytest.mark.parametrize("second", ["capture", "void"])
async def test_a_payment_has_one_open_capture_or_void(
    connection: Connection, operation: tuple[UUID, UUID], second: str
) -> None:
    payment_id, charge_id = operation
    change = {"method": None, "charge_id": charge_id}
    await add_operation(connection, payment_id, kind="capture", **change)

    with pytest.raises(asyncpg.UniqueViolationError) as error:
        await add_operation(connection, payment_id, kind=second, **change)

    assert error.value.constraint_name == "uq_operation_one_open_change"


@pytest.mark.parametrize(
    ("changes", "constraint"),
    [
        ({"status": "done"} | SETTLED, "status"),
        ({"status": "succeeded"}, "settled"),
        (SETTLED, "settled"),
        ({"kind": "gift"}, "kind"),
        ({"amount": -1}, "kind"),
        ({"method": None}, "kind"),
        ({"kind": "refund"}, "kind"),
        ({"kind": "refund", "method": None}, "kind"),
        ({"is_final": True}, "is_final"),
    ],
)
async def test_inconsistent_operation_is_rejected(
    connection: Connection, changes: dict[str, Any], constraint: str
) -> None:
    payment_id = await add_payment(connection)

    with pytest.raises(asyncpg.CheckViolationError) as error:
        await add_operation(connection, payment_id, **changes)

    assert error.value.constraint_name == f"ck_operation_{constraint}"


async def test_an_operation_belongs_to_a_payment(connection: Connection) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await add_operation(connection, new_id())


async def test_balanced_posting_is_accepted(
    connection: Connection, operation: tuple[UUID, UUID]
) -> None:
    entries = [("a", "EUR", 5), ("b", "EUR", -5), ("a", "JPY", -7), ("b", "JPY", 7)]

    await add_posting(connection, operation, *entries)

    assert await connection.fetchval("SELECT count(*) FROM payments.entry") == 4


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [("a", "EUR", 5)],
        [("a", "EUR", 5), ("b", "EUR", -4)],
        [("a", "EUR", 5), ("b", "JPY", -5)],
    ],
)
async def test_unbalanced_posting_is_rejected(
    connection: Connection, operation: tuple[UUID, UUID], entries: list[tuple[str, str, int]]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as error:
        await add_posting(connection, operation, *entries)

    assert error.value.constraint_name == "posting_balances"
    assert await connection.fetchval("SELECT count(*) FROM payments.posting") == 0


async def test_ledger_entry_cannot_be_added_later(
    connection: Connection, operation: tuple[UUID, UUID]
) -> None:
    posting_id = await add_posting(connection, operation, ("a", "EUR", 5), ("b", "EUR", -5))

    with pytest.raises(asyncpg.CheckViolationError):
        await insert(
            connection, "entry", posting_id=posting_id, account="c", currency="EUR", amount=1
        )


async def test_zero_ledger_entry_is_rejected(
    connection: Connection, operation: tuple[UUID, UUID]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as error:
        await add_posting(connection, operation, ("a", "EUR", 0))

    assert error.value.constraint_name == "ck_entry_amount"


async def test_an_operation_is_posted_once(
    connection: Connection, operation: tuple[UUID, UUID]
) -> None:
    await add_posting(connection, operation, ("a", "EUR", 5), ("b", "EUR", -5))

    with pytest.raises(asyncpg.UniqueViolationError):
        await add_posting(connection, operation, ("a", "EUR", 5), ("b", "EUR", -5))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE payments.entry SET amount = amount * 2",
        "UPDATE payments.entry SET account = 'c' WHERE account = 'a'",
        "DELETE FROM payments.entry",
        "UPDATE payments.posting SET created_at = now()",
        "DELETE FROM payments.posting",
    ],
)
async def test_ledger_is_append_only(
    connection: Connection, operation: tuple[UUID, UUID], change: str
) -> None:
    await add_posting(connection, operation, ("a", "EUR", 5), ("b", "EUR", -5))

    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await connection.execute(change)


async def test_a_webhook_is_stored_once(connection: Connection) -> None:
    event = {
        "provider": "sandbox",
        "event_id": "evt_1",
        "type": "charge.succeeded",
        "body": "{}",
        "state": "pending",
        "received_at": "2026-11-21T12:00:00Z",
        "due_at": "2026-11-21T12:00:00Z",
    }
    await insert(connection, "webhook_event", **event)

    with pytest.raises(asyncpg.UniqueViolationError):
        await insert(connection, "webhook_event", **event)


@pytest.mark.parametrize(
    ("captured", "refunded", "status"),
    [(1000, 1001, "succeeded"), (600, 601, "authorized"), (1001, 0, "succeeded"), (1, 0, "voided")],
)
async def test_sandbox_never_takes_or_refunds_too_much(
    connection: Connection, captured: int, refunded: int, status: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await insert(
            connection,
            "sandbox_charge",
            operation_id=new_id(),
            status=status,
            amount=1000,
            currency="EUR",
            method="sandbox_ok",
            captured=captured,
            refunded=refunded,
            created_at="2026-11-21T12:00:00Z",
        )


async def test_ledger_detects_tampered_payment(
    connection: Connection, database_url: str, postgres: Any
) -> None:
    payments_app: PaymentsApp = build_payments_app("sql", postgres)
    payment = await payments_app.paid(1000)
    assert (await report(payments_app)) == (True, ())

    await connection.execute("UPDATE payments.payment SET refunded = 1")

    assert (await report(payments_app)) == (False, (payment.payment_id,))


async def report(payments_app: PaymentsApp) -> tuple[bool, tuple[UUID, ...]]:
    found = await payments_app.ledger.verify(STAFF)
    return found.balanced, found.mismatched_payments
