"""What must be true at any moment of a move, and what must be true when all has come to rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from tests.e2e.dedicated_server import DatabaseReader
from tests.e2e.relocation_load import AMOUNT, RelocationLoad, Sale
from tests.e2e.test_crash import BROKEN, UNFINISHED

PATIENCE = 90
# while a charge is on its way the provider may know of it before we do
ON_ITS_WAY = (
    "WHERE NOT EXISTS (SELECT FROM payments.operation u WHERE u.payment_id = p.payment_id"
    " AND u.status IN ('pending', 'unknown')) AND"
)
ORDERS = """
SELECT o.order_id::text, o.user_id::text, o.status, o.payment_status, o.reservation_id,
    (SELECT count(*) FROM payments.operation p JOIN payments.sandbox_charge c USING (operation_id)
     WHERE p.payment_id = o.payment_id AND c.status = 'succeeded') AS charges
FROM orders."order" o
"""
STATES = {
    "paid": ("processing", "paid", "committed"),
    "delivered": ("completed", "paid", "consumed"),
    "cancelled": ("cancelled", "refunded", "released"),
}


def parts_of(sql: str) -> tuple[str, str]:
    """What is asked of inventory, and what of the others: they may lie in two databases."""
    parts = [part.strip() for part in sql.split("UNION ALL")]
    for_inventory = [part for part in parts if "inventory." in part]
    others = [part for part in parts if "inventory." not in part]
    assert for_inventory
    assert others
    return "\nUNION ALL ".join(for_inventory), "\nUNION ALL ".join(others)


def at_any_moment(sql: str) -> str:
    changed = sql.replace("WHERE order_id IS NOT NULL AND (captured", f"{ON_ITS_WAY} (captured")
    assert changed != sql
    return changed


BROKEN_INVENTORY, BROKEN_OTHERS = parts_of(BROKEN)
BROKEN_MEANWHILE = at_any_moment(BROKEN_OTHERS)
LEFT_INVENTORY, LEFT_OTHERS = parts_of(UNFINISHED)


@dataclass
class InvariantWatcher:
    """Looks into all databases, every second."""

    common: DatabaseReader
    own: DatabaseReader
    looks: int = 0
    # databases in which inventory was looked at
    at_inventory: int = 0
    broken: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def watching(self, every: float = 1.0) -> AsyncIterator[None]:
        closing = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_looking(closing, every))
            try:
                yield
            finally:
                closing.set()

    async def _keep_looking(self, closing: asyncio.Event, every: float) -> None:
        while not closing.is_set():
            await self.look()
            await asyncio.sleep(every)

    async def look(self) -> None:
        self.broken += [row["what"] for row in await self.common.fetch_all(BROKEN_MEANWHILE)]
        for database in (self.common, self.own):
            self.broken += await self._of_inventory(database)
        self.looks += 1

    async def _of_inventory(self, database: DatabaseReader) -> list[str]:
        try:
            rows = await database.fetch_all(BROKEN_INVENTORY)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            return []  # it is in the other one
        self.at_inventory += 1
        return [row["what"] for row in rows]


async def is_idle(database: DatabaseReader) -> None:
    """In one database again, with every event handled: only parcels are left to be sent."""
    left = [""]
    try:
        async with asyncio.timeout(PATIENCE):
            while left:
                left = [row["what"] for row in await database.fetch_all(LEFT_OTHERS)]
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"hangs: {left}") from None
    assert await database.fetch_all(BROKEN) == []


async def invariants_hold(
    database: DatabaseReader, buyers: RelocationLoad, stock: int
) -> tuple[int, int]:
    """Every order that was acknowledged is there once, as it became; none besides.

    How many there are, and how many are there twice.
    """
    sales = {sale.order_id: sale for sale in buyers.told.sales}
    mine = {person.user_id for person in buyers.buyers}
    rows = [row for row in await database.fetch_all(ORDERS) if row["user_id"] in mine]
    found = {row["order_id"]: row for row in rows}
    doubled = len(set(found) - set(sales)) + sum(row["charges"] != 1 for row in rows)
    assert sorted(found) == sorted(sales)
    reservations = await _reservations(database)
    for order_id, sale in sales.items():
        row = found[order_id]
        state = (row["status"], row["payment_status"], reservations[str(row["reservation_id"])])
        assert state == STATES[sale.fate], sale
    await _stock_is_exact(database, buyers, stock)
    return len(found), doubled


async def _reservations(database: DatabaseReader) -> dict[str, str]:
    sql = "SELECT reservation_id::text, status FROM inventory.reservation"
    return {row["reservation_id"]: row["status"] for row in await database.fetch_all(sql)}


async def _stock_is_exact(database: DatabaseReader, buyers: RelocationLoad, stock: int) -> None:
    fates = [sale.fate for sale in buyers.told.sales]
    sql = "SELECT on_hand, reserved FROM inventory.stock WHERE product_id::text = $1"
    shelf = [tuple(row) for row in await database.fetch_all(sql, buyers.product_id)]
    assert shelf == [(stock - fates.count("delivered"), fates.count("paid"))]


async def responses_are_consistent(buyers: RelocationLoad, sales: list[Sale]) -> None:
    """Who asks again with the same key is told the same."""
    for sale in sales:
        again = await buyers.post("/orders", sale.buyer, sale.key, json=buyers.wish)
        assert again.status_code == 201, again.text
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json() == sale.order
        assert again.json()["total"]["amount"] == AMOUNT
