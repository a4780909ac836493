"""Rows of the ledger that were changed by SQL are found, and named, by the verification.

The triggers and foreign keys that refuse such changes are switched off for the change.
"""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from markethall.payments.contract.ledger import (
    LedgerFinding,
    LedgerReport,
    PostingQuery,
    PostingView,
)
from markethall.payments.contract.statuses import LedgerProblem as Problem
from markethall.payments.domain.ledger import chain_of
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.postgres import Postgres
from tests.conftest import plain
from tests.payments.conftest import STAFF, PaymentsApp, build_payments_app


class Ledger:
    """A chain of one capture and four refunds, and a way to change it."""

    def __init__(self, payments_app: PaymentsApp, connection: Any) -> None:
        self.payments_app = payments_app
        self.connection = connection
        self.postings: list[PostingView] = []

    async def fill(self) -> None:
        payment = await self.payments_app.paid(1000)
        for amount in (1, 2, 3, 4):
            await self.payments_app.refund(payment, amount)
        page = await self.payments_app.ledger.list_postings(STAFF, PostingQuery())
        self.postings = sorted(page.items, key=lambda posting: posting.sequence)

    async def change(self, *statements: str) -> None:
        """Run statements; {1} to {5} are the ids of the postings."""
        ids = ["", *(f"'{posting.posting_id}'" for posting in self.postings)]
        async with self.connection.transaction():
            await self.connection.execute("SET LOCAL session_replication_role = replica")
            for statement in statements:
                await self.connection.execute(statement.format(*ids))

    async def verify(self) -> LedgerReport:
        return await self.payments_app.ledger.verify(STAFF)

    async def findings(self, *, rebuild: bool = True) -> list[tuple[Problem, int | None]]:
        report = await self.payments_app.ledger.verify(STAFF, rebuild=rebuild)
        assert report.intact is not bool(report.findings)
        assert report.finding_count == len(report.findings)
        return [(one.problem, self._number(one)) for one in report.findings]

    def _number(self, finding: LedgerFinding) -> int | None:
        """Return the sequence number of the posting that the finding names."""
        for posting in self.postings:
            if posting.posting_id == finding.posting_id:
                return posting.sequence
        return finding.sequence


@pytest.fixture
async def ledger(database_url: str, postgres: Postgres) -> AsyncIterator[Ledger]:
    connection = await asyncpg.connect(plain(database_url))
    ledger = Ledger(build_payments_app("sql", postgres), connection)
    await ledger.fill()
    yield ledger
    await connection.close()


ENTRY_OF_3 = "FROM payments.entry WHERE posting_id = {3}"


async def test_unchanged_ledger_is_intact(ledger: Ledger) -> None:
    assert await ledger.findings() == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE payments.entry SET amount = amount * 2 WHERE posting_id = {3}",
        "UPDATE payments.entry SET account = 'other' WHERE posting_id = {3} AND amount > 0",
        "UPDATE payments.entry SET currency = 'USD' WHERE posting_id = {3}",
        "UPDATE payments.entry SET currency = 'USD' WHERE posting_id = {3} AND amount > 0",
        "UPDATE payments.posting SET created_at = created_at + '1 us' WHERE posting_id = {3}",
        "UPDATE payments.posting SET kind = 'capture' WHERE posting_id = {3}",
        "UPDATE payments.posting SET hash = sha256(hash) WHERE posting_id = {3}",
    ],
    ids=["amount", "account", "currency", "one_currency", "time", "kind", "hash"],
)
async def test_changed_posting_is_named(ledger: Ledger, change: str) -> None:
    await ledger.change(change)

    report = await ledger.verify()
    assert not report.intact
    first = report.findings[0]
    assert (first.problem, first.chain, first.sequence) == (
        Problem.HASH_DIFFERS,
        chain_of(ledger.postings[0].payment_id),
        3,
    )
    assert first.posting_id == ledger.postings[2].posting_id


async def test_changed_amount_is_found_in_sums_chain_and_rebuilt_ledger(ledger: Ledger) -> None:
    await ledger.change(
        "UPDATE payments.entry SET amount = amount + 1 WHERE posting_id = {3} AND amount > 0"
    )

    report = await ledger.verify()

    assert [one.problem for one in report.findings] == [
        Problem.HASH_DIFFERS,
        Problem.UNBALANCED,
        Problem.PAYMENT_DIFFERS,
        Problem.DIFFERS_FROM_OPERATION,
    ]
    assert not report.balanced
    assert report.unbalanced_postings == (ledger.postings[2].posting_id,)
    assert report.mismatched_payments == (ledger.postings[2].payment_id,)


async def test_deletion_in_the_middle_is_found(ledger: Ledger) -> None:
    await ledger.change(f"DELETE {ENTRY_OF_3}", "DELETE FROM payments.posting WHERE posting_id={3}")

    found = await ledger.findings()

    assert found[0] == (Problem.POSTING_MISSING, 3)
    assert (Problem.OPERATION_WITHOUT_POSTING, 3) in found


async def test_deletion_at_the_end_is_found(ledger: Ledger) -> None:
    await ledger.change(
        "DELETE FROM payments.entry WHERE posting_id IN ({4}, {5})",
        "DELETE FROM payments.posting WHERE posting_id IN ({4}, {5})",
    )

    found = await ledger.findings()

    assert found[0] == (Problem.POSTING_MISSING, 4)
    assert {(Problem.OPERATION_WITHOUT_POSTING, 4), (Problem.OPERATION_WITHOUT_POSTING, 5)} <= set(
        found
    )


async def test_deletion_at_the_end_with_a_changed_head_is_found(ledger: Ledger) -> None:
    await ledger.change(
        "DELETE FROM payments.entry WHERE posting_id = {5}",
        "DELETE FROM payments.posting WHERE posting_id = {5}",
        "UPDATE payments.posting_chain SET (sequence, hash) ="
        " (SELECT sequence, hash FROM payments.posting WHERE posting_id = {4})",
    )

    assert await ledger.findings() == [
        (Problem.PAYMENT_DIFFERS, None),
        (Problem.OPERATION_WITHOUT_POSTING, 5),
    ]


async def test_deletion_of_a_whole_ledger_is_found(ledger: Ledger) -> None:
    await ledger.change("TRUNCATE payments.entry, payments.posting, payments.posting_chain")

    report = await ledger.verify()

    assert report.posting_count == 0
    problems = [one.problem for one in report.findings]
    assert problems == [Problem.PAYMENT_DIFFERS, *[Problem.OPERATION_WITHOUT_POSTING] * 5]


async def test_deleted_entries_are_found(ledger: Ledger) -> None:
    await ledger.change(f"DELETE {ENTRY_OF_3}")

    found = await ledger.findings(rebuild=False)

    assert found[:2] == [(Problem.HASH_DIFFERS, 3), (Problem.UNBALANCED, 3)]


async def test_reordered_postings_are_found(ledger: Ledger) -> None:
    await ledger.change(
        "UPDATE payments.posting SET sequence = 1000 WHERE posting_id = {2}",
        "UPDATE payments.posting SET sequence = 2 WHERE posting_id = {3}",
        "UPDATE payments.posting SET sequence = 3 WHERE posting_id = {2}",
    )

    found = await ledger.findings()

    assert [problem for problem, _ in found] == [Problem.HASH_DIFFERS] * 3
    assert (await ledger.verify()).findings[0].sequence == 2


async def test_inserted_posting_is_found(ledger: Ledger) -> None:
    operation_id = await add_failed_operation(ledger)
    await ledger.change(
        f"INSERT INTO payments.posting SELECT '{new_id()}', payment_id, '{operation_id}',"
        " kind, created_at, chain, sequence + 1, hash FROM payments.posting"
        " WHERE posting_id = {5}",
    )

    found = await ledger.findings()

    assert (Problem.POSTING_AFTER_HEAD, 6) in found
    assert (Problem.POSTING_WITHOUT_OPERATION, 6) in found


async def add_failed_operation(ledger: Ledger) -> UUID:
    payment = await ledger.payments_app.confirm(
        await ledger.payments_app.open(), "sandbox_declined"
    )
    row = await ledger.connection.fetchrow(
        "SELECT operation_id FROM payments.operation WHERE payment_id = $1", payment.payment_id
    )
    operation_id: UUID = row["operation_id"]
    return operation_id


async def test_changed_operation_is_found(ledger: Ledger) -> None:
    await ledger.change("UPDATE payments.operation SET amount = 7 WHERE kind = 'refund'")

    assert await ledger.findings() == [
        (Problem.DIFFERS_FROM_OPERATION, number) for number in (2, 3, 4, 5)
    ]


async def test_ledger_accepts_postings_after_a_finding(ledger: Ledger) -> None:
    await ledger.change("UPDATE payments.entry SET amount = amount * 2 WHERE posting_id = {3}")

    await ledger.payments_app.paid(5)

    report = await ledger.verify()
    assert (report.posting_count, report.findings[0].sequence) == (6, 3)
