"""The tables of the hand-written purchase, and their data."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

SCHEMA: Final = "hand_written"
TABLES: Final = """
DROP SCHEMA IF EXISTS hand_written CASCADE;
CREATE SCHEMA hand_written;
SET search_path TO hand_written;

CREATE TABLE products (
  product_id uuid PRIMARY KEY,
  sku text NOT NULL UNIQUE,
  name text NOT NULL,
  price bigint NOT NULL CHECK (price > 0),
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  is_active boolean NOT NULL DEFAULT true);

CREATE TABLE stock (
  product_id uuid PRIMARY KEY REFERENCES products,
  on_hand bigint NOT NULL,
  reserved bigint NOT NULL DEFAULT 0,
  CHECK (0 <= reserved AND reserved <= on_hand));

-- unpaid_orders and unpaid_units count what the limits are compared with
CREATE TABLE customers (
  customer_id uuid PRIMARY KEY,
  is_active boolean NOT NULL DEFAULT true,
  unpaid_orders integer NOT NULL DEFAULT 0 CHECK (unpaid_orders >= 0));

CREATE TABLE unpaid_units (
  customer_id uuid REFERENCES customers,
  product_id uuid REFERENCES products,
  units bigint NOT NULL CHECK (units >= 0),
  PRIMARY KEY (customer_id, product_id));

-- without response: the request is running, or its process has crashed
CREATE TABLE idempotency_records (
  customer_id uuid REFERENCES customers,
  key text CHECK (length(key) BETWEEN 1 AND 255),
  request_hash bytea NOT NULL,
  status smallint,
  response text,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (customer_id, key),
  CHECK ((status IS NULL) = (response IS NULL)));

CREATE TABLE orders (
  order_id uuid PRIMARY KEY,
  number bigint GENERATED ALWAYS AS IDENTITY (START 1001) UNIQUE,
  customer_id uuid NOT NULL REFERENCES customers,
  status text NOT NULL CHECK (status IN ('pending', 'processing', 'expired')),
  payment_status text NOT NULL CHECK (payment_status IN ('none', 'paid')),
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  total bigint NOT NULL CHECK (total > 0),
  shipping_address jsonb NOT NULL,
  expires_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  version integer NOT NULL DEFAULT 1 CHECK (version >= 1),
  CHECK ((status = 'processing') = (payment_status = 'paid')));
CREATE INDEX ON orders (customer_id, created_at);

CREATE TABLE order_lines (
  line_id uuid PRIMARY KEY,
  order_id uuid NOT NULL REFERENCES orders,
  product_id uuid NOT NULL REFERENCES products,
  sku text NOT NULL,
  name text NOT NULL,
  unit_price bigint NOT NULL CHECK (unit_price > 0),
  quantity integer NOT NULL CHECK (quantity BETWEEN 1 AND 999),
  total bigint NOT NULL CHECK (total = unit_price * quantity),
  UNIQUE (order_id, product_id));

CREATE TABLE timeline (
  order_id uuid REFERENCES orders,
  version integer,
  change text NOT NULL,
  actor text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  status text NOT NULL,
  payment_status text NOT NULL,
  PRIMARY KEY (order_id, version));

-- held: the order is not paid; committed: it is paid and not shipped
CREATE TABLE reservations (
  reservation_id uuid PRIMARY KEY,
  order_id uuid NOT NULL UNIQUE REFERENCES orders,
  product_id uuid NOT NULL REFERENCES stock,
  quantity integer NOT NULL CHECK (quantity > 0),
  status text NOT NULL CHECK (status IN ('held', 'committed', 'expired')));
CREATE INDEX ON reservations (product_id) WHERE status <> 'expired';

CREATE TABLE payments (
  payment_id uuid PRIMARY KEY,
  order_id uuid NOT NULL UNIQUE REFERENCES orders,
  customer_id uuid NOT NULL REFERENCES customers,
  status text NOT NULL
    CHECK (status IN ('created', 'processing', 'captured', 'failed', 'expired')),
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  amount bigint NOT NULL CHECK (amount > 0),
  captured bigint NOT NULL DEFAULT 0,
  expires_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  version integer NOT NULL DEFAULT 1 CHECK (version >= 1),
  CHECK (captured = CASE status WHEN 'captured' THEN amount ELSE 0 END));
CREATE INDEX ON payments (customer_id, created_at);
CREATE INDEX ON payments (expires_at) WHERE status IN ('created', 'failed');

-- the operation id is the idempotency key at the provider
CREATE TABLE operations (
  operation_id uuid PRIMARY KEY,
  payment_id uuid NOT NULL REFERENCES payments,
  customer_id uuid NOT NULL,
  key text NOT NULL,
  method text NOT NULL,
  currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  amount bigint NOT NULL CHECK (amount > 0),
  status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'succeeded', 'failed')),
  provider_reference text,
  failure_code text,
  created_at timestamptz NOT NULL DEFAULT now(),
  settled_at timestamptz,
  UNIQUE (customer_id, key),
  FOREIGN KEY (customer_id, key) REFERENCES idempotency_records,
  CHECK ((settled_at IS NULL) = (status = 'pending')));
CREATE UNIQUE INDEX ON operations (payment_id) WHERE status IN ('pending', 'succeeded');
CREATE INDEX ON operations (created_at) WHERE status = 'pending';

CREATE TABLE postings (
  posting_id uuid PRIMARY KEY,
  payment_id uuid NOT NULL REFERENCES payments,
  operation_id uuid NOT NULL UNIQUE REFERENCES operations,
  created_at timestamptz NOT NULL DEFAULT now());

-- a debit is positive, a credit is negative
CREATE TABLE entries (
  posting_id uuid REFERENCES postings,
  account text,
  currency text,
  amount bigint NOT NULL CHECK (amount <> 0),
  PRIMARY KEY (posting_id, account, currency));

CREATE FUNCTION posting_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE total numeric;
BEGIN
  SELECT sum(amount) INTO total FROM hand_written.entries WHERE posting_id = NEW.posting_id;
  IF total IS DISTINCT FROM 0 THEN
    RAISE EXCEPTION 'the entries of posting % do not sum to zero', NEW.posting_id
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER posting_balances AFTER INSERT ON postings
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION posting_balances();
CREATE CONSTRAINT TRIGGER posting_balances AFTER INSERT OR UPDATE ON entries
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION posting_balances();

CREATE TABLE outbox (
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event_id uuid NOT NULL UNIQUE,
  type text NOT NULL,
  order_id uuid NOT NULL,
  payload jsonb NOT NULL,
  occurred_at timestamptz NOT NULL DEFAULT now(),
  published_at timestamptz);
CREATE INDEX ON outbox (seq) WHERE published_at IS NULL;

CREATE TABLE inbox (
  handler text,
  event_id uuid,
  seq bigint NOT NULL,
  order_id uuid NOT NULL,
  payload jsonb NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  done_at timestamptz,
  PRIMARY KEY (handler, event_id));
CREATE INDEX ON inbox (handler, seq) WHERE done_at IS NULL;

-- a sequence would leave a gap when a transaction rolls back
CREATE TABLE invoice_counter (
  last_number bigint NOT NULL CHECK (last_number >= 0));
INSERT INTO invoice_counter VALUES (0);

CREATE TABLE invoices (
  number bigint PRIMARY KEY CHECK (number >= 1),
  order_id uuid NOT NULL UNIQUE REFERENCES orders,
  issued_at timestamptz NOT NULL DEFAULT now(),
  document jsonb NOT NULL CHECK (jsonb_typeof(document) = 'object'));
"""
_FILL_PRODUCTS: Final = """
WITH added AS (
  INSERT INTO hand_written.products (product_id, sku, name, price, currency)
  SELECT product_id, 'BENCH-' || number, 'Market apron no. ' || number, 1000 + number, 'EUR'
  FROM unnest($1::uuid[]) WITH ORDINALITY AS product (product_id, number)
  RETURNING product_id)
INSERT INTO hand_written.stock (product_id, on_hand) SELECT product_id, $2 FROM added
"""
_FILL_CUSTOMERS: Final = """
INSERT INTO hand_written.customers (customer_id) SELECT unnest($1::uuid[])
"""


async def create_tables(
    database_url: str, product_ids: Sequence[UUID], customer_ids: Sequence[UUID], stock: int
) -> None:
    """Create the tables with these customers and products. `stock` is the units per product."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(TABLES)
        await connection.execute(_FILL_PRODUCTS, product_ids, stock)
        await connection.execute(_FILL_CUSTOMERS, customer_ids)
    finally:
        await connection.close()


async def drop_tables(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    finally:
        await connection.close()
