"""Check the invariants of stock in the database."""

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Driver = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

# selects (violation, product id, warehouse id) for each violation
INVARIANT_VIOLATIONS: Final = """
SELECT 'on hand is not the sum of the movements' AS violation, product_id, warehouse_id
FROM inventory.stock s WHERE on_hand <>
  (SELECT coalesce(sum(delta), 0) FROM inventory.stock_movement m
   WHERE (m.product_id, m.warehouse_id) = (s.product_id, s.warehouse_id))
UNION ALL
SELECT 'reserved is not the sum of the live lines', product_id, warehouse_id
FROM inventory.stock s WHERE reserved <>
  (SELECT coalesce(sum(quantity - consumed), 0)
   FROM inventory.reservation_line l JOIN inventory.reservation r USING (reservation_id)
   WHERE (l.product_id, l.warehouse_id) = (s.product_id, s.warehouse_id)
     AND r.status IN ('held', 'committed'))
UNION ALL
SELECT 'more reserved than on hand and backorder', product_id, warehouse_id
FROM inventory.stock WHERE reserved > on_hand + backorder
UNION ALL
SELECT 'negative quantity', product_id, warehouse_id
FROM inventory.stock WHERE reserved < 0 OR on_hand < 0
UNION ALL
SELECT 'on_hand_after is not the running sum', product_id, warehouse_id FROM
  (SELECT *, sum(delta) OVER (PARTITION BY product_id, warehouse_id ORDER BY number) AS running_sum
   FROM inventory.stock_movement) m WHERE on_hand_after <> running_sum
UNION ALL
SELECT 'sold is not the consumed quantity', product_id, NULL FROM inventory.product p WHERE
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
    """Return the names of the violated invariants."""
    return {row["violation"] for row in await driver.fetch(INVARIANT_VIOLATIONS)}


async def deadlocks(driver: "Driver") -> int:
    """Return the number of deadlocks that the server has counted.

    A connection reports its deadlocks when it closes, so the caller must close the connections
    first.
    """
    count: int = await driver.fetchval(_DEADLOCKS)
    return count


async def wait_until_disconnected(driver: "Driver", application: str) -> None:
    """Wait until the server has no connections of this application.

    Raises TimeoutError after 30 seconds.
    """
    async with asyncio.timeout(30):
        while await driver.fetchval(_OPEN_CONNECTIONS, application):
            pass
