"""Checks invariants during a relocation, and the final state after all work is done."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from tests.e2e.dedicated_server import DatabaseReader
from tests.e2e.relocation_load import AMOUNT, RelocationLoad, Sale
from tests.e2e.test_crash import BROKEN, UNFINISHED
from tests.progress import progress_limit

TIMEOUT_SECONDS = 90
# excludes payments with an unfinished operation, because their charge may be recorded later
NO_UNFINISHED_OPERATION = (
    "WHERE NOT EXISTS (SELECT FROM payments.operation u WHERE u.payment_id = p.payment_id"
    " AND u.status IN ('pending', 'unknown')) AND"
)
ORDERS = """
SELECT o.order_id::text, o.user_id::text, o.status, o.payment_status, o.reservation_id,
    (SELECT count(*) FROM payments.operation p JOIN payments.sandbox_charge c USING (operation_id)
     WHERE p.payment_id = o.payment_id AND c.status = 'succeeded') AS charges
FROM orders."order" o
"""
# maps the outcome of a sale to the status of the order, its payment and its reservation
STATES = {
    "paid": ("processing", "paid", "committed"),
    "delivered": ("completed", "paid", "consumed"),
    "cancelled": ("cancelled", "refunded", "released"),
}


def split_query(sql: str) -> tuple[str, str]:
    """Split a UNION ALL query into the parts that read inventory, and the other parts.

    During a relocation the two may have to run in different databases.
    """
    parts = [part.strip() for part in sql.split("UNION ALL")]
    for_inventory = [part for part in parts if "inventory." in part]
    others = [part for part in parts if "inventory." not in part]
    assert for_inventory
    assert others
    return "\nUNION ALL ".join(for_inventory), "\nUNION ALL ".join(others)


def during_relocation(sql: str) -> str:
    """Exclude unfinished payments from the check of the charges in the query."""
    changed = sql.replace(
        "WHERE order_id IS NOT NULL AND (captured", f"{NO_UNFINISHED_OPERATION} (captured"
    )
    assert changed != sql
    return changed


BROKEN_INVENTORY, BROKEN_OTHERS = split_query(BROKEN)
BROKEN_DURING_RELOCATION = during_relocation(BROKEN_OTHERS)
UNFINISHED_INVENTORY, UNFINISHED_OTHERS = split_query(UNFINISHED)


@dataclass
class InvariantWatcher:
    """Checks the invariants in all databases every second."""

    common: DatabaseReader
    relocated: DatabaseReader
    checks: int = 0
    # the number of checks in a database that contained inventory
    inventory_checks: int = 0
    broken: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def running(self, interval: float = 1.0) -> AsyncIterator[None]:
        stopped = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._check_repeatedly(stopped, interval))
            try:
                yield
            finally:
                stopped.set()

    async def _check_repeatedly(self, stopped: asyncio.Event, interval: float) -> None:
        while not stopped.is_set():
            await self.check()
            await asyncio.sleep(interval)

    async def check(self) -> None:
        self.broken += [
            row["what"] for row in await self.common.fetch_all(BROKEN_DURING_RELOCATION)
        ]
        for database in (self.common, self.relocated):
            self.broken += await self._check_inventory(database)
        self.checks += 1

    async def _check_inventory(self, database: DatabaseReader) -> list[str]:
        try:
            rows = await database.fetch_all(BROKEN_INVENTORY)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            return []  # the tables of inventory are in the other database
        self.inventory_checks += 1
        return [row["what"] for row in rows]


async def wait_until_idle(database: DatabaseReader) -> None:
    """Wait until every event is processed. Raises AssertionError when there is no progress."""
    unfinished = [""]
    try:
        async with progress_limit(TIMEOUT_SECONDS) as limit:
            while unfinished:
                rows = await database.fetch_all(UNFINISHED_OTHERS)
                unfinished = [row["what"] for row in rows]
                limit.note(unfinished)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not finished: {unfinished}") from None
    assert await database.fetch_all(BROKEN) == []


async def assert_orders_are_exact(
    database: DatabaseReader, buyers: RelocationLoad, stock: int
) -> tuple[int, int]:
    """Check that the orders are exactly the acknowledged ones, each in its final state.

    Return the number of orders, and the number of duplicates: unacknowledged orders, plus orders
    whose number of charges is not one.
    """
    sales = {sale.order_id: sale for sale in buyers.results.sales}
    buyer_ids = {person.user_id for person in buyers.buyers}
    rows = [row for row in await database.fetch_all(ORDERS) if row["user_id"] in buyer_ids]
    found = {row["order_id"]: row for row in rows}
    duplicates = len(set(found) - set(sales)) + sum(row["charges"] != 1 for row in rows)
    assert sorted(found) == sorted(sales)
    reservations = await _reservations(database)
    for order_id, sale in sales.items():
        row = found[order_id]
        state = (row["status"], row["payment_status"], reservations[str(row["reservation_id"])])
        assert state == STATES[sale.outcome], sale
    await _assert_stock_is_exact(database, buyers, stock)
    return len(found), duplicates


async def _reservations(database: DatabaseReader) -> dict[str, str]:
    sql = "SELECT reservation_id::text, status FROM inventory.reservation"
    return {row["reservation_id"]: row["status"] for row in await database.fetch_all(sql)}


async def _assert_stock_is_exact(
    database: DatabaseReader, buyers: RelocationLoad, stock: int
) -> None:
    outcomes = [sale.outcome for sale in buyers.results.sales]
    sql = "SELECT on_hand, reserved FROM inventory.stock WHERE product_id::text = $1"
    stock_rows = [tuple(row) for row in await database.fetch_all(sql, buyers.product_id)]
    assert stock_rows == [(stock - outcomes.count("delivered"), outcomes.count("paid"))]


async def assert_responses_are_replayed(buyers: RelocationLoad, sales: list[Sale]) -> None:
    """Check that a repeated request with the same idempotency key gets the same response."""
    for sale in sales:
        again = await buyers.post("/orders", sale.buyer, sale.key, json=buyers.order_body)
        assert again.status_code == 201, again.text
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json() == sale.order
        assert again.json()["total"]["amount"] == AMOUNT
