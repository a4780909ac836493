"""A shelf that runs low says so, once per fall."""

import sqlalchemy as sa
from alembic import op

revision = "d14b60e7a9c3"
down_revision = "a94c07e6b2d8"
branch_labels = None
depends_on = None

SCHEMA = "inventory"

# `low_at` of a shelf is the product's threshold: so a take that does not fall below it costs one
# comparison. Goods that are sold were taken before, and are no second fall.
# give_threshold locks the shelves first, in the order in which everybody does.
RULES = """
CREATE FUNCTION inventory.take_threshold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT low_stock_threshold INTO NEW.low_at
    FROM inventory.product WHERE product_id = NEW.product_id;
    RETURN NEW;
END $$;

CREATE TRIGGER shelf_has_the_threshold BEFORE INSERT ON inventory.stock
    FOR EACH ROW EXECUTE FUNCTION inventory.take_threshold();

CREATE FUNCTION inventory.give_threshold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM inventory.stock WHERE product_id = NEW.product_id
    ORDER BY warehouse_id FOR NO KEY UPDATE;
    UPDATE inventory.stock SET low_at = NEW.low_stock_threshold WHERE product_id = NEW.product_id;
    RETURN NULL;
END $$;

CREATE TRIGGER shelves_follow_the_threshold AFTER UPDATE OF low_stock_threshold ON inventory.product
    FOR EACH ROW WHEN (OLD.low_stock_threshold IS DISTINCT FROM NEW.low_stock_threshold)
    EXECUTE FUNCTION inventory.give_threshold();

CREATE FUNCTION inventory.tell_low(of_product uuid, in_warehouse uuid, before bigint)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO inventory.outbox (event_id, type, version, key, payload, occurred_at, request_id)
    SELECT inventory.uuid7(), 'inventory.stock_low', 1, p.product_id,
        json_build_object('product_id', p.product_id, 'warehouse_id', s.warehouse_id,
            'sku', p.sku, 'available', s.on_hand - s.reserved + s.backorder,
            'threshold', s.low_at)::text,
        clock_timestamp(), gen_random_uuid()::text
    FROM inventory.stock s JOIN inventory.product p ON p.product_id = s.product_id
    WHERE s.product_id = of_product AND s.warehouse_id = in_warehouse
        AND before > s.low_at AND s.on_hand - s.reserved + s.backorder <= s.low_at
$$;

CREATE FUNCTION inventory.take_tells_low() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM inventory.tell_low(
        NEW.product_id, NEW.warehouse_id, OLD.on_hand - OLD.reserved + OLD.backorder);
    RETURN NULL;
END $$;

CREATE TRIGGER take_tells_low AFTER UPDATE OF reserved ON inventory.stock
    FOR EACH ROW WHEN (NEW.reserved > OLD.reserved
        AND NEW.on_hand - NEW.reserved + NEW.backorder <= NEW.low_at
        AND OLD.on_hand - OLD.reserved + OLD.backorder > NEW.low_at)
    EXECUTE FUNCTION inventory.take_tells_low();

CREATE FUNCTION inventory.movement_tells_low() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM inventory.tell_low(NEW.product_id, NEW.warehouse_id,
        s.on_hand - s.reserved + s.backorder - NEW.delta)
    FROM inventory.stock s
    WHERE s.product_id = NEW.product_id AND s.warehouse_id = NEW.warehouse_id
        AND s.low_at IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER movement_tells_low AFTER INSERT ON inventory.stock_movement
    FOR EACH ROW WHEN (NEW.delta < 0 AND NEW.reason <> 'sold')
    EXECUTE FUNCTION inventory.movement_tells_low();
"""
TRIGGERS = {
    "movement_tells_low": "stock_movement",
    "take_tells_low": "stock",
    "shelves_follow_the_threshold": "product",
    "shelf_has_the_threshold": "stock",
}
FUNCTIONS = (
    "movement_tells_low",
    "take_tells_low",
    "tell_low(uuid, uuid, bigint)",
    "give_threshold",
    "take_threshold",
)


def upgrade() -> None:
    op.add_column("stock", sa.Column("low_at", sa.BigInteger()), schema=SCHEMA)
    op.execute(
        "UPDATE inventory.stock s SET low_at = p.low_stock_threshold FROM inventory.product p"
        " WHERE p.product_id = s.product_id AND p.low_stock_threshold IS NOT NULL"
    )
    for rule in RULES.strip().split("\n\n"):
        op.execute(rule)


def downgrade() -> None:
    for trigger, table in TRIGGERS.items():
        op.execute(f"DROP TRIGGER {trigger} ON {SCHEMA}.{table}")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {SCHEMA}.{function}")
    op.drop_column("stock", "low_at", schema=SCHEMA)
