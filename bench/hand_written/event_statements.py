"""The SQL of the events and of the periodic jobs. A statement handles up to a hundred rows."""

from typing import Final

BATCH: Final = 100

# Moves events to the inboxes of their handlers. Returns the number of moved events, and whether
# there are new ones for each handler.
RELAY: Final = """
WITH published AS (
  UPDATE outbox SET published_at = now()
  -- an array and no join, so that Postgres never plans to read the whole outbox
  WHERE seq = ANY (ARRAY(
    SELECT seq FROM outbox WHERE published_at IS NULL
    ORDER BY seq LIMIT 100 FOR UPDATE SKIP LOCKED))
  RETURNING *),
delivered AS (
  INSERT INTO inbox (handler, event_id, seq, order_id, payload)
  SELECT handler, event_id, seq, order_id, payload
  FROM published JOIN (VALUES
    ('payment_captured', 'mark_paid'), ('order_paid', 'commit_reservation')
  ) AS subscription (type, handler) USING (type)
  ON CONFLICT DO NOTHING
  RETURNING handler)
SELECT (SELECT count(*) FROM published) AS moved,
  count(*) FILTER (WHERE handler = 'mark_paid') > 0 AS captured,
  count(*) FILTER (WHERE handler = 'commit_reservation') > 0 AS paid
FROM delivered
"""

# Reduces what the limits count by the orders of `ended`: first customers, then units, in the order
# of PLACE_ORDER, so that the two do not wait for each other.
_FREE_LIMITS: Final = """
freed AS (
  UPDATE customers SET unpaid_orders = unpaid_orders - of_customer.orders
  FROM (SELECT customer_id, count(*) AS orders FROM ended GROUP BY customer_id) AS of_customer
  WHERE customers.customer_id = of_customer.customer_id
  RETURNING customers.customer_id),
freed_units AS (
  UPDATE unpaid_units SET units = unpaid_units.units - of_product.units
  FROM (
    SELECT customer_id, product_id, sum(quantity) AS units
    FROM ended JOIN freed USING (customer_id) JOIN order_lines USING (order_id)
    GROUP BY customer_id, product_id) AS of_product
  WHERE unpaid_units.customer_id = of_product.customer_id
    AND unpaid_units.product_id = of_product.product_id
  RETURNING unpaid_units.product_id, of_product.units)"""

_ADD_TIMELINE: Final = """
entered AS (
  INSERT INTO timeline (order_id, version, change, actor, status, payment_status)
  SELECT order_id, version, status, 'system', status, payment_status FROM ended)"""

# the event `payment_captured`: the order is paid, and gets its invoice
MARK_PAID: Final = (
    """
WITH due AS (
  SELECT event_id, order_id FROM inbox WHERE handler = 'mark_paid' AND done_at IS NULL
  ORDER BY seq LIMIT 100 FOR UPDATE SKIP LOCKED),
done AS (
  UPDATE inbox SET done_at = now() FROM due
  WHERE handler = 'mark_paid' AND inbox.event_id = due.event_id),
ended AS (
  UPDATE orders SET status = 'processing', payment_status = 'paid', version = version + 1
  FROM due WHERE orders.order_id = due.order_id AND status = 'pending'
  RETURNING orders.*),"""
    + _FREE_LIMITS
    + ","
    + _ADD_TIMELINE
    + """,
published AS (
  INSERT INTO outbox (event_id, type, order_id, payload)
  SELECT gen_random_uuid(), 'order_paid', order_id, jsonb_build_object('order_id', order_id)
  FROM ended),
counted AS (
  UPDATE invoice_counter SET last_number = last_number + (SELECT count(*) FROM ended)
  WHERE EXISTS (SELECT FROM ended)
  RETURNING last_number - (SELECT count(*) FROM ended) AS before),
invoiced AS (
  INSERT INTO invoices (number, order_id, document)
  SELECT before + row_number() OVER (ORDER BY ended.number), order_id, jsonb_build_object(
    'order_number', ended.number, 'ordered_at', created_at, 'currency', currency,
    'shipping_address', shipping_address, 'total', ended.total, 'lines', jsonb_build_array(
      jsonb_build_object('sku', sku, 'name', name, 'quantity', quantity,
        'unit_price', unit_price, 'total', line.total)))
  FROM counted, ended JOIN order_lines AS line USING (order_id))
SELECT count(*) FROM due
"""
)

# the event `order_paid`
COMMIT_RESERVATIONS: Final = """
WITH due AS (
  SELECT event_id, order_id FROM inbox WHERE handler = 'commit_reservation' AND done_at IS NULL
  ORDER BY seq LIMIT 100 FOR UPDATE SKIP LOCKED),
done AS (
  UPDATE inbox SET done_at = now() FROM due
  WHERE handler = 'commit_reservation' AND inbox.event_id = due.event_id),
committed AS (
  UPDATE reservations SET status = 'committed'
  FROM due WHERE reservations.order_id = due.order_id AND status = 'held')
SELECT count(*) FROM due
"""

# ends overdue orders without a running charge, and releases their stock
EXPIRE_ORDERS: Final = (
    """
WITH overdue AS (
  SELECT payment_id FROM payments
  WHERE status IN ('created', 'failed') AND expires_at <= now()
  ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED),
expired AS (
  UPDATE payments SET status = 'expired', version = version + 1
  FROM overdue WHERE payments.payment_id = overdue.payment_id
  RETURNING payments.order_id),
ended AS (
  UPDATE orders SET status = 'expired', version = version + 1
  FROM expired WHERE orders.order_id = expired.order_id AND status = 'pending'
  RETURNING orders.*),"""
    + _FREE_LIMITS
    + ","
    + _ADD_TIMELINE
    + """,
released AS (
  UPDATE reservations SET status = 'expired'
  FROM ended WHERE reservations.order_id = ended.order_id AND reservations.status = 'held'),
restocked AS (
  UPDATE stock SET reserved = reserved - of_product.units
  FROM (SELECT product_id, sum(units) AS units FROM freed_units GROUP BY product_id) AS of_product
  WHERE stock.product_id = of_product.product_id),
published AS (
  INSERT INTO outbox (event_id, type, order_id, payload)
  SELECT gen_random_uuid(), 'order_expired', order_id, jsonb_build_object('order_id', order_id)
  FROM ended)
SELECT count(*) FROM overdue
"""
)

# operations whose process has crashed between the two transactions
GET_ABANDONED: Final = """
SELECT operation_id, method, amount FROM operations
WHERE status = 'pending' AND created_at < now() - $1::interval
ORDER BY created_at LIMIT 100
"""
