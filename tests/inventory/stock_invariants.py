"""O1, asked of the database by hand: what is on hand, what is kept, and what was sold."""

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Driver = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

# each row is a broken promise
INVARIANT_VIOLATIONS: Final = """
SELECT 'on hand is not the sum of the movements' AS what, product_id, warehouse_id
FROM inventory.stock s WHERE on_hand <>
  (SELECT coalesce(sum(delta), 0) FROM inventory.stock_movement m
   WHERE (m.product_id, m.warehouse_id) = (s.product_id, s.warehouse_id))
UNION ALL
SELECT 'reserved is not what the live lines have', product_id, warehouse_id
FROM inventory.stock s WHERE reserved <>
  (SELECT coalesce(sum(quantity - consumed), 0)
   FROM inventory.reservation_line l JOIN inventory.reservation r USING (reservation_id)
   WHERE (l.product_id, l.warehouse_id) = (s.product_id, s.warehouse_id)
     AND r.status IN ('held', 'committed'))
UNION ALL
SELECT 'more reserved than there is', product_id, warehouse_id
FROM inventory.stock WHERE reserved > on_hand + backorder
UNION ALL
SELECT 'less than nothing', product_id, warehouse_id
FROM inventory.stock WHERE reserved < 0 OR on_hand < 0
UNION ALL
SELECT 'a movement does not add up', product_id, warehouse_id FROM
  (SELECT *, sum(delta) OVER (PARTITION BY product_id, warehouse_id ORDER BY number) AS so_far
   FROM inventory.stock_movement) m WHERE on_hand_after <> so_far
UNION ALL
SELECT 'sold is not what has left', product_id, NULL FROM inventory.product p WHERE
  (SELECT coalesce(-sum(delta), 0) FROM inventory.stock_movement m
   WHERE m.product_id = p.product_id AND reason = 'sold') <>
  (SELECT coalesce(sum(consumed), 0) FROM inventory.reservation_line l
   WHERE l.product_id = p.product_id)
"""
_DEADLOCKS: Final = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"

_OPEN_CONNECTIONS: Final = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = $1"
)


async def invariant_violations(driver: "Driver") -> set[str]:
    """What is not true. Nothing, ever."""
    return {row["what"] for row in await driver.fetch(INVARIANT_VIOLATIONS)}


async def deadlocks(driver: "Driver") -> int:
    """How often two have waited for each other (40P01), counted by the server.

    A connection reports what it saw when it ends, or at its next statement a second later.
    """
    count: int = await driver.fetchval(_DEADLOCKS)
    return count


async def wait_until_disconnected(driver: "Driver", application: str) -> None:
    """When all connections of that name to this database have ended and reported.

    Raises TimeoutError when one has not after half a minute.
    """
    async with asyncio.timeout(30):
        while await driver.fetchval(_OPEN_CONNECTIONS, application):
            pass
