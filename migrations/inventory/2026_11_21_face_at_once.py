"""What is shown of a product is written in half the time."""

from alembic import op

revision = "6be2f04a71c8"
down_revision = "d14b60e7a9c3"
branch_labels = None
depends_on = None

# The very texts that were written so far. Most prices never change with time: those are looked at
# no further, and need none of the functions that look for the one that holds.
FACE = """
CREATE OR REPLACE FUNCTION inventory.write_product_json() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.has_scheduled_price := NEW.prices <> '[]' AND NEW.prices @> jsonb_build_array(
        jsonb_build_object('currency', NEW.price_currency));
    SELECT left(row_to_json(document)::text, -1) INTO NEW.product_json FROM (
        SELECT NEW.product_id, NEW.sku, NEW.name, NEW.description, NEW.category, NEW.family,
            NEW.options, NEW.tags, NEW.images, NEW.attributes, NEW.barcode, NEW.weight_grams,
            NEW.tax_class, NEW.prices, NEW.translations, NEW.backorder_limit,
            NEW.low_stock_threshold, NEW.status, NEW.version,
            inventory.format_utc(NEW.created_at) AS created_at, inventory.format_utc(NEW.updated_at) AS updated_at
    ) document;
    IF NOT NEW.has_scheduled_price THEN
        NEW.product_json := NEW.product_json || ',"price":{"amount":' || NEW.price_amount || ',"currency":"'
            || NEW.price_currency || '"},"compare_at":' || coalesce(NEW.compare_at::text, 'null');
    END IF;
    RETURN NEW;
END $$
"""

FACE_BEFORE = """
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


def upgrade() -> None:
    op.execute(FACE)


def downgrade() -> None:
    op.execute(FACE_BEFORE)
