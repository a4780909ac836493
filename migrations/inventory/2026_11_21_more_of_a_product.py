"""More of a product: barcode, weight, tax class, further prices, translations, limits."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "3f7a1c9e52d0"
down_revision = "e41b7c90a5d3"
branch_labels = None
depends_on = None

SCHEMA = "inventory"

COLUMNS = (
    sa.Column("barcode", sa.Text()),
    sa.Column("weight_grams", sa.BigInteger()),
    sa.Column("tax_class", sa.Text(), server_default="standard", nullable=False),
    sa.Column("compare_at", sa.BigInteger()),
    sa.Column("prices", postgresql.JSONB(), server_default="[]", nullable=False),
    sa.Column("has_scheduled_price", sa.Boolean(), server_default="false", nullable=False),
    sa.Column("translations", postgresql.JSONB(), server_default="{}", nullable=False),
    sa.Column("backorder_limit", sa.BigInteger(), server_default="0", nullable=False),
    sa.Column("low_stock_threshold", sa.BigInteger()),
)
CHECKS = {
    "compare_at": "compare_at >= 0",
    "weight": "weight_grams >= 0",
    "backorder_limit": "backorder_limit >= 0",
    "low_stock_threshold": "low_stock_threshold >= 0",
}

# the price that holds at a moment: of those in the product's own currency the one that began last
PRICES = """
CREATE FUNCTION inventory.price_at(
    amount bigint, compare_at bigint, of_currency text, prices jsonb, moment timestamptz
) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (
            SELECT jsonb_build_object('amount', p -> 'amount', 'compare_at', p -> 'compare_at')
            FROM jsonb_array_elements(prices) WITH ORDINALITY AS further (p, place)
            WHERE p ->> 'currency' = of_currency
                AND coalesce((p ->> 'valid_from')::timestamptz <= moment, true)
                AND coalesce(moment < (p ->> 'valid_until')::timestamptz, true)
            ORDER BY (p ->> 'valid_from')::timestamptz DESC NULLS LAST, place DESC
            LIMIT 1
        ),
        jsonb_build_object('amount', amount, 'compare_at', compare_at)
    )
$$;

CREATE FUNCTION inventory.scheduled_price_json(
    amount bigint, compare_at bigint, of_currency text, prices jsonb, moment timestamptz
) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT ',"price":{"amount":' || (now_at ->> 'amount') || ',"currency":"' || of_currency
        || '"},"compare_at":' || coalesce(now_at ->> 'compare_at', 'null')
    FROM inventory.price_at(amount, compare_at, of_currency, prices, moment) now_at
$$;
"""

FACE = """
CREATE OR REPLACE FUNCTION inventory.write_product_json() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.has_scheduled_price := NEW.prices @> jsonb_build_array(
        jsonb_build_object('currency', NEW.price_currency));
    SELECT left(row_to_json(document)::text, -1) INTO NEW.product_json FROM (
        SELECT NEW.product_id, NEW.sku, NEW.name, NEW.description, NEW.category, NEW.family,
            NEW.options, NEW.tags, NEW.images, NEW.attributes, NEW.barcode, NEW.weight_grams,
            NEW.tax_class, NEW.prices, NEW.translations, NEW.backorder_limit,
            NEW.low_stock_threshold, NEW.status, NEW.version,
            inventory.format_utc(NEW.created_at) AS created_at, inventory.format_utc(NEW.updated_at) AS updated_at
    ) document;
    IF NOT NEW.has_scheduled_price THEN
        NEW.product_json := NEW.product_json || inventory.scheduled_price_json(
            NEW.price_amount, NEW.compare_at, NEW.price_currency, '[]', NEW.updated_at);
    END IF;
    RETURN NEW;
END $$
"""

FIRST_FACE = """
CREATE OR REPLACE FUNCTION inventory.write_product_json() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT left(row_to_json(document)::text, -1) INTO NEW.product_json FROM (
        SELECT NEW.product_id, NEW.sku, NEW.name, NEW.description,
            json_build_object('amount', NEW.price_amount, 'currency', NEW.price_currency) AS price,
            NEW.category, NEW.family, NEW.options, NEW.tags, NEW.images, NEW.attributes,
            NEW.status, NEW.version, inventory.format_utc(NEW.created_at) AS created_at,
            inventory.format_utc(NEW.updated_at) AS updated_at
    ) document;
    RETURN NEW;
END $$
"""


def upgrade() -> None:
    for column in COLUMNS:
        # the defaults stay: a process of an older release, in the time of an update, names none
        op.add_column("product", column, schema=SCHEMA)
    for name, rule in CHECKS.items():
        op.create_check_constraint(op.f(f"ck_product_{name}"), "product", rule, schema=SCHEMA)
    for function in PRICES.strip().split("\n\n"):
        op.execute(function)
    _write_faces(FACE)


def downgrade() -> None:
    for column in COLUMNS:
        op.drop_column("product", column.name, schema=SCHEMA)
    _write_faces(FIRST_FACE)
    op.execute("DROP FUNCTION inventory.scheduled_price_json")
    op.execute("DROP FUNCTION inventory.price_at")


def _write_faces(function: str) -> None:
    """By the trigger, which writes them with every change."""
    op.execute(function)
    op.execute("UPDATE inventory.product SET version = version")
