"""What only Postgres can show: how many statements, and what is held while the provider thinks."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from markethall.payments.sql import statements
from markethall.shared.db import Postgres, Statement
from markethall.shared.metrics import REGISTRY
from tests.payments.conftest import NEIGHBOUR, STAFF, Stall, open_stall


@pytest.fixture
def stall(postgres: Postgres) -> Stall:
    return open_stall("sql", postgres)


async def statements_of(act: Callable[[], Awaitable[Any]]) -> int:
    before = REGISTRY.get_sample_value("markethall_db_statements_total")
    await act()
    after = REGISTRY.get_sample_value("markethall_db_statements_total")
    assert before is not None
    assert after is not None
    return int(after - before)


async def test_opening_takes_one_statement(stall: Stall) -> None:
    assert await statements_of(stall.open) == 1


async def test_reading_takes_one_statement(stall: Stall) -> None:
    payment = await stall.open()

    assert await statements_of(lambda: stall.desk.payment(STAFF, payment.payment_id)) == 1


async def test_paying_takes_ten_statements_with_key_and_provider(stall: Stall) -> None:
    payment = await stall.open()

    assert await statements_of(lambda: stall.confirm_with_key(payment, "key")) == 10


async def test_refunding_takes_nine_statements_with_provider(stall: Stall) -> None:
    payment = await stall.paid()

    assert await statements_of(lambda: stall.refund(payment, 1)) == 9


async def test_cancelling_takes_three_statements(stall: Stall) -> None:
    payment = await stall.open()

    async def cancel() -> None:
        await stall.payments.cancel(NEIGHBOUR, payment.payment_id)

    assert await statements_of(cancel) == 3


async def test_an_idle_sweep_takes_three_statements(stall: Stall) -> None:
    assert await statements_of(stall.sweep) == 3


async def test_no_connection_is_held_while_the_provider_thinks(postgres: Postgres) -> None:
    held: list[int] = []

    async def sleep(_: float) -> None:
        pool = postgres._pool
        assert pool is not None
        held.append(pool.get_size() - pool.get_idle_size())

    stall = open_stall("sql", postgres, sleep)
    await stall.confirm(await stall.open(), "sandbox_slow")

    assert held == [0]


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (statements.EXPIRE, "ix_payment_payable"),
        (statements.CLAIM_DUE, "ix_operation_due"),
        (statements.RIPE_EVENTS, "ix_webhook_event_parked"),
    ],
)
async def test_the_sweeps_have_their_own_index(
    stall: Stall, postgres: Postgres, statement: Statement, index: str
) -> None:
    now = stall.clock()
    values = {"now": now, "until": now + timedelta(seconds=15), "limit": 10}

    async with postgres.transaction() as session:
        driver = session._driver
        await driver.execute("SET LOCAL enable_seqscan = off")
        sql, arguments = statement.bind(values)
        rows = await driver.fetch(f"EXPLAIN {sql}", *arguments)

    assert index in "\n".join(row[0] for row in rows)
