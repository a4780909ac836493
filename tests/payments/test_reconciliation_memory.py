"""A comparison of many lines takes no more memory than one of few."""

import os
import random
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import pytest

from markethall.payments.contract.reconciliation import DifferenceView
from markethall.payments.domain.reconciliation import ReportLine
from markethall.shared.kernel.money import Money
from markethall.shared.persistence.postgres import Postgres
from tests.payments.conftest import START, PaymentsApp, build_payments_app
from tests.payments.report_samples import foreign_line

FULL: Final = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
# more than the sorter keeps in memory
LINES: Final = 100_000 if FULL else 12_000
MAX_BYTES: Final = 60 * 1024 * 1024
DAY = START.replace(hour=0)


@pytest.fixture
def payments_app(postgres: Postgres) -> PaymentsApp:
    return build_payments_app("sql", postgres)


async def insert_charges(postgres: Postgres, payment_id: UUID, count: int) -> None:
    """Insert succeeded captures of one payment, spread over the day."""
    async with postgres.transaction() as connection:
        await connection._driver.execute(
            "INSERT INTO payments.operation (operation_id, payment_id, kind, status, amount,"
            " currency, provider, charge_id, reason, is_final, saves_method, provider_reference,"
            " created_at, due_at, settled_at)"
            " SELECT md5(n::text)::uuid, $1, 'capture', 'succeeded', 1 + n % 1000, 'EUR',"
            " 'sandbox', (SELECT operation_id FROM payments.operation WHERE payment_id = $1), '',"
            " false, false, 'ref_' || n, moment, moment, moment"
            " FROM generate_series(1, $2::int) AS n,"
            " LATERAL (SELECT $3::timestamptz + n * interval '1 day' / ($2::int + 1))"
            " AS times (moment)",
            payment_id, count, DAY,
        )  # fmt: skip


async def report(count: int, planted: Sequence[int]) -> AsyncIterator[ReportLine]:
    """Yield the lines in a random sequence; those of `planted` have another amount."""
    numbers = list(range(1, count + 1))
    random.Random(7).shuffle(numbers)
    wrong = frozenset(planted)
    for number in numbers:
        amount = 1 + number % 1000 + (number in wrong)
        moment = DAY + number * timedelta(days=1) / (count + 1)
        yield replace(
            foreign_line(reference=f"ref_{number}", occurred_at=moment),
            amount=Money(amount=amount, currency="EUR"),
        )


@pytest.mark.slow
async def test_many_lines_are_compared_in_bounded_memory(
    payments_app: PaymentsApp, postgres: Postgres
) -> None:
    payment = await payments_app.confirm(await payments_app.open(), "sandbox_action_required")
    await insert_charges(postgres, payment.payment_id, LINES)
    planted = random.Random(8).sample(range(1, LINES + 1), 50)

    def report_of_day(start: datetime, end: datetime) -> AsyncIterator[ReportLine]:
        return report(LINES, planted)

    payments_app.gateway.report = report_of_day  # type: ignore[method-assign]  # the report of the provider
    found: list[DifferenceView] = []

    async def collect(batch: Sequence[DifferenceView]) -> None:
        found.extend(batch)

    tracemalloc.start()
    try:
        summary = await payments_app.container.report_comparison().compare_period(
            "sandbox", DAY, DAY + timedelta(days=1), collect
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    print(f"{LINES} lines: peak {peak / 2**20:.1f} MiB")
    assert (summary.matched, summary.differences) == (LINES - 50, 50)
    assert {one.provider_reference for one in found} == {f"ref_{number}" for number in planted}
    assert peak < MAX_BYTES
