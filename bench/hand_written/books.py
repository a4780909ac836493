"""Checks that the rows of the hand-written purchase agree with each other."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import asyncpg

from .tables import SCHEMA

POLL_SECONDS: Final = 0.1
MAX_WAIT_SECONDS: Final = 30

COUNT_UNFINISHED: Final = """
SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL)
  + (SELECT count(*) FROM inbox WHERE done_at IS NULL)
"""
# by what must hold, a query that counts the rows that violate it
CHECKS: Final[Mapping[str, str]] = {
    "all events are handled": COUNT_UNFINISHED,
    "the reserved stock is that of the orders that are not shipped": """
        SELECT count(*) FROM stock FULL JOIN (
          SELECT product_id, sum(quantity) AS units FROM reservations JOIN orders USING (order_id)
          WHERE orders.status IN ('pending', 'processing') GROUP BY product_id) AS needed
          USING (product_id)
        WHERE reserved IS DISTINCT FROM coalesce(units, 0)""",
    "an unpaid order has a held reservation, a paid one a committed reservation": """
        SELECT count(*) FROM orders LEFT JOIN reservations USING (order_id)
        WHERE reservations.status IS DISTINCT FROM CASE orders.status
          WHEN 'pending' THEN 'held' WHEN 'processing' THEN 'committed' ELSE 'expired' END""",
    "a reservation has the units of its order": """
        SELECT count(*) FROM order_lines FULL JOIN reservations USING (order_id, product_id)
        WHERE order_lines.quantity IS DISTINCT FROM reservations.quantity""",
    "the unpaid orders of a customer are counted": """
        SELECT count(*) FROM customers LEFT JOIN (
          SELECT customer_id, count(*) AS orders FROM orders WHERE status = 'pending'
          GROUP BY customer_id) AS unpaid USING (customer_id)
        WHERE unpaid_orders <> coalesce(unpaid.orders, 0)""",
    "the unpaid units of a customer are counted": """
        SELECT count(*) FROM unpaid_units FULL JOIN (
          SELECT customer_id, product_id, sum(quantity) AS units
          FROM orders JOIN order_lines USING (order_id) WHERE status = 'pending'
          GROUP BY customer_id, product_id) AS counted USING (customer_id, product_id)
        WHERE coalesce(unpaid_units.units, 0) <> coalesce(counted.units, 0)""",
    "the total of an order is that of its lines, and is the amount of its payment": """
        SELECT count(*) FROM orders LEFT JOIN payments USING (order_id) LEFT JOIN (
          SELECT order_id, sum(total) AS total FROM order_lines
          GROUP BY order_id) AS lines USING (order_id)
        WHERE orders.total IS DISTINCT FROM payments.amount
          OR orders.total IS DISTINCT FROM lines.total""",
    "a payment is captured if, and only if, its order is processing": """
        SELECT count(*) FROM payments FULL JOIN orders USING (order_id)
        WHERE (payments.status IS NOT DISTINCT FROM 'captured')
          <> (orders.status IS NOT DISTINCT FROM 'processing')""",
    "a captured payment has one succeeded charge, others have none": """
        SELECT count(*) FROM payments LEFT JOIN (
          SELECT payment_id, count(*) AS charges FROM operations WHERE status = 'succeeded'
          GROUP BY payment_id) AS succeeded USING (payment_id)
        WHERE coalesce(charges, 0) <> CASE status WHEN 'captured' THEN 1 ELSE 0 END""",
    "no operation is pending, and each request has its answer": """
        SELECT (SELECT count(*) FROM operations WHERE status = 'pending')
          + (SELECT count(*) FROM idempotency_records WHERE response IS NULL)""",
    "the entries of a posting sum to zero": """
        SELECT count(*) FROM (
          SELECT sum(amount) AS total FROM postings LEFT JOIN entries USING (posting_id)
          GROUP BY posting_id) AS posted
        WHERE total IS DISTINCT FROM 0""",
    "the entries of a captured payment are its amount": """
        SELECT count(*) FROM payments LEFT JOIN (
          SELECT payment_id, sum(entries.amount) AS total
          FROM postings JOIN entries USING (posting_id)
          WHERE account = 'provider:sandbox' GROUP BY payment_id) AS posted USING (payment_id)
        WHERE captured <> coalesce(posted.total, 0)""",
    "a paid order has an invoice, others have none": """
        SELECT count(*) FROM orders FULL JOIN invoices USING (order_id)
        WHERE (orders.status = 'processing') IS DISTINCT FROM (invoices.number IS NOT NULL)""",
    "the numbers of invoices have no gap": """
        SELECT count(*) FROM invoice_counter WHERE (
          last_number <> (SELECT count(*) FROM invoices)
          OR last_number <> (SELECT coalesce(max(number), 0) FROM invoices))""",
    "the timeline of an order has each version, and ends with its status": """
        SELECT count(*) FROM orders LEFT JOIN (
          SELECT order_id, count(*) AS entries, (array_agg(status ORDER BY version DESC))[1] AS last
          FROM timeline GROUP BY order_id) AS entered USING (order_id)
        WHERE version IS DISTINCT FROM entries OR status IS DISTINCT FROM last""",
}


async def find_violations(
    database_url: str, max_wait_seconds: float = MAX_WAIT_SECONDS
) -> dict[str, int]:
    """Map each violated check to the number of its rows, after the last event is handled.

    After `max_wait_seconds`, the first check counts the events that are not handled.
    """
    connection = await asyncpg.connect(database_url, server_settings={"search_path": SCHEMA})
    try:
        await _wait_for_events(connection, max_wait_seconds)
        counts = {name: await connection.fetchval(sql) for name, sql in CHECKS.items()}
    finally:
        await connection.close()
    return {name: count for name, count in counts.items() if count}


async def _wait_for_events(
    connection: "asyncpg.Connection[asyncpg.Record]", max_seconds: float
) -> None:
    deadline = time.monotonic() + max_seconds
    while await connection.fetchval(COUNT_UNFINISHED):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(POLL_SECONDS)
