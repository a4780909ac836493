"""Test the integrity checks of payments: sound data has no violation, a tampered row is named."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from markethall.payments.contract import ListPaymentStates
from markethall.payments.contract.api import PaymentView
from markethall.payments.domain.operation import Succeeded
from markethall.payments.memory.tables import Tables
from markethall.payments.ports import PaymentGatewayTimeout, SandboxCharge
from markethall.payments.service.integrity import PaymentIntegrity
from markethall.payments.service.verify_ledger import VerifyLedger
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.integrity import Findings
from markethall.shared.persistence.postgres import Postgres
from tests.integrity_checks import find_violations, tamper
from tests.payments.conftest import EUR_19_99, ORDERS_CONTEXT, PaymentsApp, build_payments_app


async def pay_in_all_ways(payments_app: PaymentsApp) -> PaymentView:
    """Return a payment of 19.99 of which 5.00 is refunded."""
    payment = await payments_app.paid()
    await payments_app.refund(payment, 500)
    await payments_app.confirm(await payments_app.open(), "sandbox_declined")
    await payments_app.confirm(await payments_app.open(0), "free")
    await payments_app.open()
    transfer = await payments_app.open(3000)
    await payments_app.confirm(transfer, "manual:bank_transfer")
    await payments_app.mark_paid(transfer, 1000)
    await payments_app.payments.cancel(ORDERS_CONTEXT, new_id())
    return payment


async def violations_of(payments_app: PaymentsApp) -> dict[str, list[str]]:
    violations = await find_violations(payments_app.container.integrity_checks())
    return {
        check: [f"{row.row}: {row.problem}" for row in rows] for check, rows in violations.items()
    }


async def test_payments_made_in_all_ways_have_no_violation(payments_app: PaymentsApp) -> None:
    await pay_in_all_ways(payments_app)

    assert await violations_of(payments_app) == {}


async def test_operation_without_an_answer_is_no_violation_before_its_time(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.open()
    payments_app.gateway.after = PaymentGatewayTimeout()
    await payments_app.confirm(payment)
    early = await violations_of(payments_app)
    payments_app.clock.advance(16 * 60)

    late = await violations_of(payments_app)

    assert early == {}
    (row,) = late["O8.operations_settle"]
    assert "charge at sandbox is unknown since 2026-11-21T12:00:00" in row


async def test_refund_that_waits_for_staff_is_no_violation(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open(1000)
    await payments_app.confirm(payment, "manual:bank_transfer")
    await payments_app.mark_paid(payment, 1000)
    await payments_app.refund(payment, 400)

    payments_app.clock.advance(16 * 60)

    assert await violations_of(payments_app) == {}


async def test_payment_that_no_job_expires_is_named(payments_app: PaymentsApp) -> None:
    payment = await payments_app.open()
    payments_app.clock.advance(31 * 60)

    violations = await violations_of(payments_app)

    (row,) = violations["O8.payments_expire"]
    assert row.startswith(f"payment payment_id={payment.payment_id}: created, although it has")


async def test_money_of_an_ended_payment_that_no_job_refunds_is_named(
    payments_app: PaymentsApp,
) -> None:
    payment = await payments_app.open(3000)
    await payments_app.confirm(payment, "manual:bank_transfer")
    await payments_app.mark_paid(payment, 1000)
    await payments_app.payments.cancel(ORDERS_CONTEXT, payment.payment_id)
    payments_app.clock.advance(16 * 60)

    violations = await violations_of(payments_app)

    (row,) = violations["O8.money_after_end_refunded"]
    assert row.startswith(f"payment payment_id={payment.payment_id}: 1000 EUR of an ended payment")


async def test_pending_webhook_of_a_known_operation_is_named(
    storage: tuple[str, Postgres | None],
) -> None:
    payments_app = build_payments_app(*storage)
    operation = await payments_app.record_intent(await payments_app.open(), "sandbox_ok")
    payments_app.gateway.before = PaymentGatewayTimeout()
    await payments_app.send(operation.operation_id, Succeeded("ref"))
    payments_app.clock.advance(16 * 60)

    violations = await violations_of(payments_app)

    assert "is pending since" in violations["O8.webhooks_applied"][0]


TAMPERED = {
    "captured lowered": (
        "UPDATE payments.payment SET captured = 1998, authorized = 1998 WHERE refunded = 500",
        "O2.amounts_equal_operations",
        "captured is 1998, its operations have 1999",
    ),
    "refund forgotten": (
        "UPDATE payments.payment SET refunded = 0 WHERE refunded = 500",
        "O2.amounts_equal_operations",
        "refunded is 0, its operations have 500",
    ),
    "refund never ends": (
        "UPDATE payments.payment SET refunding = 7 WHERE refunded = 500",
        "O2.amounts_equal_operations",
        "refunding is 7, its operations have 0",
    ),
    "operation of another currency": (
        "UPDATE payments.operation SET currency = 'USD' WHERE kind = 'refund'",
        "O2.amounts_equal_operations",
        "1 of its operations have another currency",
    ),
    "posting removed": (
        "DELETE FROM payments.posting WHERE kind = 'refund'",
        "O4.ledger_intact",
        "posting missing",
    ),
    "entry changed": (
        "UPDATE payments.entry SET amount = amount + 1 WHERE account = 'provider:sandbox'",
        "O4.ledger_intact",
        "unbalanced",
    ),
    "both entries changed": (
        "UPDATE payments.entry SET amount = amount * 2",
        "O4.ledger_intact",
        "differs from operation",
    ),
    "charge forgotten by the sandbox": (
        "DELETE FROM payments.sandbox_charge WHERE captured > 0",
        "O2.sandbox_agrees",
        "captured is 1999, at the provider 0",
    ),
    "refund unknown here": (
        "UPDATE payments.sandbox_charge SET refunded = 600 WHERE captured > 0",
        "O2.sandbox_agrees",
        "refunded is 500, at the provider 600",
    ),
    "charge unknown here": (
        "UPDATE payments.sandbox_charge SET operation_id = gen_random_uuid() WHERE captured > 0",
        "O2.sandbox_agrees",
        "1499 EUR were taken, but there is no such operation",
    ),
}


@pytest.fixture
def sql_payments_app(postgres: Postgres) -> PaymentsApp:
    return build_payments_app("sql", postgres)


@pytest.mark.parametrize("name", TAMPERED)
async def test_tampered_row_is_named(
    sql_payments_app: PaymentsApp, database_url: str, name: str
) -> None:
    statement, check, problem = TAMPERED[name]
    await pay_in_all_ways(sql_payments_app)
    await tamper(database_url, statement)

    violations = await violations_of(sql_payments_app)

    assert problem in "\n".join(violations[check])


async def test_changed_payment_is_named_in_memory() -> None:
    payments_app = build_payments_app("memory", None)
    payment = await pay_in_all_ways(payments_app)
    await change_payment(payments_app, payment, captured=5000)

    violations = await violations_of(payments_app)

    row = f"payment payment_id={payment.payment_id}"
    assert violations == {
        "O2.amounts_within_limits": [
            f"{row}: captured is 5000, authorized 1999, amount 1999",
        ],
        "O2.amounts_equal_operations": [f"{row}: captured is 5000, its operations have 1999"],
        "O4.ledger_intact": [f"posting payment_id={payment.payment_id}: payment differs"],
    }


async def change_payment(payments_app: PaymentsApp, payment: PaymentView, **changes: Any) -> None:
    database: Any = payments_app.container.database()
    async with database.write_transaction() as tables:
        assert isinstance(tables, Tables)
        stored = tables.payments.get(payment.payment_id)
        assert stored
        tables.payments.put(payment.payment_id, replace(stored, **changes))


class DatabaseThatGoes:
    """Opens a number of read sessions of another database, then raises Unavailable."""

    def __init__(self, database: Any, session_count: int) -> None:
        self._database = database
        self._sessions_left = session_count

    def read_session(self) -> Any:
        self._sessions_left -= 1
        if self._sessions_left < 0:
            raise Unavailable(dependency="database")
        return self._database.read_session()


async def test_ledger_check_that_ends_early_names_what_it_has_found() -> None:
    payments_app = build_payments_app("memory", None)
    payment = await payments_app.paid()
    await change_payment(payments_app, payment, captured=5000)
    container = payments_app.container
    # enough for the heads, one chain and the payments, but not for the operations
    database: Any = DatabaseThatGoes(container.database(), 3)
    integrity = PaymentIntegrity(container.snapshots(), VerifyLedger(database), payments_app.clock)
    checks = {check.check_id: check for check in integrity.list_checks()}
    findings = Findings()

    with pytest.raises(Unavailable):
        await checks["O4.ledger_intact"].find(findings, timedelta())

    assert [row.problem for row in findings.rows] == ["payment differs"]
    assert (findings.checked, findings.violations) == (1, 1)


async def test_second_charge_is_named_in_memory() -> None:
    payments_app = build_payments_app("memory", None)
    payment = await payments_app.paid()
    database: Any = payments_app.container.database()
    async with database.write_transaction() as tables:
        (charge,) = tables.operations.rows()
        other = replace(charge, operation_id=new_id())
        tables.operations.put(other.operation_id, other)
        tables.sandbox_charges.put(new_id(), unknown_charge(payments_app))

    violations = await violations_of(payments_app)

    assert violations["O2.one_charge_per_payment"] == [
        f"payment payment_id={payment.payment_id}: 2 charges have succeeded"
    ]
    assert len(violations["O2.sandbox_agrees"]) == 2


def unknown_charge(payments_app: PaymentsApp) -> SandboxCharge:
    return SandboxCharge(
        new_id(), "succeeded", payments_app.clock(), amount=100, currency="EUR", captured=100
    )


async def test_payment_states_are_listed_in_pages_without_tombstones(
    payments_app: PaymentsApp,
) -> None:
    payments = [await payments_app.open(), await payments_app.paid(), await payments_app.open()]
    await payments_app.payments.cancel(ORDERS_CONTEXT, new_id())

    first = await payments_app.payments.list_payment_states(
        ORDERS_CONTEXT, ListPaymentStates(limit=2)
    )
    rest = await payments_app.payments.list_payment_states(
        ORDERS_CONTEXT, ListPaymentStates(after_payment_id=first.items[-1].payment_id, limit=2)
    )

    states = {state.payment_id: state for state in (*first.items, *rest.items)}
    assert len(first.items) == 2
    assert list(states) == sorted(payment.payment_id for payment in payments)
    paid = states[payments[1].payment_id]
    assert (paid.status, paid.captured) == ("captured", EUR_19_99)
    assert paid.order_id == payments[1].order_id
    assert paid.settled_at is not None
    assert states[payments[0].payment_id].settled_at is None
