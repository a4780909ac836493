"""The SQL of the two endpoints. The connections have the schema in their search path."""

from typing import Final

# Everything or nothing: without a reserved unit, the currency and the total of the order are null,
# so Postgres rejects the statement. A repeat of the key violates the primary key of the record. The
# locks are taken in the order customer, unpaid units, stock.
PLACE_ORDER: Final = """
WITH allowed AS (
  UPDATE customers SET unpaid_orders = unpaid_orders + 1
  WHERE customer_id = $1 AND is_active AND unpaid_orders < $6
  RETURNING customer_id),
limited AS (
  INSERT INTO unpaid_units AS existing (customer_id, product_id, units)
  SELECT customer_id, $4::uuid, $5::integer FROM allowed WHERE $5 <= $7::bigint
  ON CONFLICT (customer_id, product_id) DO UPDATE SET units = existing.units + excluded.units
  WHERE existing.units + excluded.units <= $7
  RETURNING product_id),
offered AS (
  UPDATE stock SET reserved = reserved + $5
  FROM limited JOIN products USING (product_id)
  WHERE stock.product_id = limited.product_id AND is_active AND on_hand - reserved >= $5
  RETURNING stock.product_id, sku, name, price, currency),
placed AS (
  INSERT INTO orders (
    order_id, customer_id, status, payment_status, currency, total, shipping_address, expires_at)
  SELECT $9::uuid, $1, 'pending', 'none', currency, price * $5, $8::text::jsonb,
    now() + interval '15 minutes'
  FROM (VALUES (1)) AS order_row (one) LEFT JOIN offered ON true
  RETURNING *),
line AS (
  INSERT INTO order_lines
  SELECT $10::uuid, order_id, product_id, sku, name, price, $5, total FROM placed, offered),
entered AS (
  INSERT INTO timeline
  SELECT order_id, 1, 'placed', 'customer:' || customer_id, created_at, status, payment_status
  FROM placed),
reserved AS (
  INSERT INTO reservations
  SELECT $11::uuid, order_id, product_id, $5, 'held' FROM placed, offered),
opened AS (
  INSERT INTO payments (
    payment_id, order_id, customer_id, status, currency, amount, expires_at)
  SELECT $12::uuid, order_id, customer_id, 'created', currency, total, expires_at FROM placed),
published AS (
  INSERT INTO outbox (event_id, type, order_id, payload)
  SELECT $13::uuid, 'order_placed', order_id, jsonb_build_object(
    'order_id', order_id, 'customer_id', customer_id, 'total', total, 'currency', currency)
  FROM placed)
INSERT INTO idempotency_records (customer_id, key, request_hash, status, response)
SELECT $1, $2, $3, 201, json_build_object(
  'order_id', order_id, 'number', number, 'customer_id', customer_id,
  'status', status, 'payment_status', payment_status,
  'lines', json_build_array(json_build_object(
    'line_id', $10, 'product_id', product_id, 'sku', sku, 'name', name, 'quantity', $5,
    'unit_price', json_build_object('amount', price, 'currency', placed.currency),
    'total', json_build_object('amount', total, 'currency', placed.currency))),
  'total', json_build_object('amount', total, 'currency', placed.currency),
  'shipping_address', shipping_address,
  'payment', json_build_object('payment_id', $12, 'status', 'created'),
  'expires_at', expires_at, 'created_at', created_at, 'version', version)::text
FROM placed, offered
RETURNING response
"""

# the reason why PLACE_ORDER was rejected
REJECTION_OF_ORDER: Final = """
SELECT CASE
  WHEN NOT EXISTS (SELECT FROM customers WHERE customer_id = $1 AND is_active)
    THEN 'customer_inactive'
  WHEN NOT EXISTS (SELECT FROM products WHERE product_id = $2 AND is_active)
    THEN 'product_not_found'
  WHEN (SELECT unpaid_orders FROM customers WHERE customer_id = $1) >= $4
    THEN 'too_many_unpaid_orders'
  WHEN $3::integer > $5::bigint - coalesce(
      (SELECT units FROM unpaid_units WHERE customer_id = $1 AND product_id = $2), 0)
    THEN 'too_many_units'
  ELSE 'out_of_stock' END
"""

# The first transaction of a confirm. No row: the payment cannot be confirmed now.
BEGIN_CHARGE: Final = """
WITH begun AS (
  UPDATE payments SET status = 'processing', version = version + 1
  WHERE payment_id = $4 AND customer_id = $1 AND status IN ('created', 'failed')
    AND expires_at > now()
  RETURNING payment_id, currency, amount),
claimed AS (
  INSERT INTO idempotency_records (customer_id, key, request_hash) SELECT $1, $2, $3 FROM begun)
INSERT INTO operations (operation_id, payment_id, customer_id, key, method, currency, amount)
SELECT $5::uuid, payment_id, $1, $2, $6, currency, amount FROM begun
RETURNING operation_id, method, amount
"""

_PAYMENT_RESPONSE: Final = """json_build_object(
  'payment_id', payment_id, 'order_id', order_id, 'customer_id', changed.customer_id,
  'status', changed.status, 'provider', 'sandbox', 'failure_code', failure_code,
  'amount', json_build_object('amount', changed.amount, 'currency', changed.currency),
  'captured', json_build_object('amount', captured, 'currency', changed.currency),
  'expires_at', expires_at, 'created_at', changed.created_at, 'version', version)::text"""

# The second transaction of a confirm. No row: the operation was settled before.
SETTLE_SUCCEEDED: Final = (
    """
WITH settled AS (
  UPDATE operations SET status = 'succeeded', provider_reference = $2, settled_at = now()
  WHERE operation_id = $1 AND status = 'pending'
  RETURNING *),
changed AS (
  UPDATE payments SET status = 'captured', captured = settled.amount, version = version + 1
  FROM settled
  WHERE payments.payment_id = settled.payment_id AND payments.status = 'processing'
  RETURNING payments.*),
posted AS (
  INSERT INTO postings (posting_id, payment_id, operation_id)
  SELECT $3::uuid, payment_id, operation_id FROM settled),
entered AS (
  INSERT INTO entries (posting_id, account, currency, amount)
  SELECT $3, account, currency, sign * amount
  FROM settled, (VALUES ('provider:sandbox', 1), ('customers:payments', -1)) AS e (account, sign)),
published AS (
  INSERT INTO outbox (event_id, type, order_id, payload)
  SELECT $4::uuid, 'payment_captured', order_id, jsonb_build_object(
    'payment_id', payment_id, 'order_id', order_id, 'amount', captured, 'currency', currency)
  FROM changed)
UPDATE idempotency_records AS record SET status = 200, response = """
    + _PAYMENT_RESPONSE
    + """
FROM settled JOIN changed USING (payment_id)
WHERE record.customer_id = settled.customer_id AND record.key = settled.key
RETURNING response
"""
)
SETTLE_FAILED: Final = (
    """
WITH settled AS (
  UPDATE operations SET status = 'failed', failure_code = $2, settled_at = now()
  WHERE operation_id = $1 AND status = 'pending'
  RETURNING *),
changed AS (
  UPDATE payments SET status = 'failed', version = version + 1
  FROM settled
  WHERE payments.payment_id = settled.payment_id AND payments.status = 'processing'
  RETURNING payments.*),
published AS (
  INSERT INTO outbox (event_id, type, order_id, payload)
  SELECT $3::uuid, 'payment_failed', order_id, jsonb_build_object(
    'payment_id', payment_id, 'order_id', order_id, 'failure_code', $2)
  FROM changed)
UPDATE idempotency_records AS record SET status = 200, response = """
    + _PAYMENT_RESPONSE
    + """
FROM settled JOIN changed USING (payment_id)
WHERE record.customer_id = settled.customer_id AND record.key = settled.key
RETURNING response
"""
)

# the reason why BEGIN_CHARGE had no row
REJECTION_OF_CONFIRM: Final = """
SELECT coalesce(
  (SELECT CASE status WHEN 'processing' THEN 'payment_in_progress' ELSE 'payment_not_payable' END
   FROM payments WHERE payment_id = $1 AND customer_id = $2),
  'payment_not_found')
"""

GET_RECORD: Final = """
SELECT request_hash, record.status, response, operation_id, method, amount
FROM idempotency_records AS record LEFT JOIN operations USING (customer_id, key)
WHERE customer_id = $1 AND key = $2
"""
ADD_REJECTION: Final = """
INSERT INTO idempotency_records (customer_id, key, request_hash, status, response)
SELECT customer_id, $2, $3, $4, $5 FROM customers WHERE customer_id = $1
ON CONFLICT DO NOTHING
"""
