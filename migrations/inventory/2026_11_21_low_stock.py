"""A shelf that runs low says so, once per fall."""

import sqlalchemy as sa
from alembic import op

revision = "d14b60e7a9c3"
down_revision = "a94c07e6b2d8"
branch_labels = None
depends_on = None

SCHEMA = "inventory"

# `low_stock_threshold` of a shelf is the product's threshold: so a take that does not fall below it costs one
# comparison. Goods that are sold were taken before, and are no second fall.
# propagate_low_stock_threshold locks the shelves first, in the order in which everybody does.
RULES = """
CREATE FUNCTION inventory.copy_low_stock_threshold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT low_stock_threshold INTO NEW.low_stock_threshold
    FROM inventory.product WHERE product_id = NEW.product_id;
    RETURN NEW;
END $$;

CREATE TRIGGER copy_low_stock_threshold BEFORE INSERT ON inventory.stock
    FOR EACH ROW EXECUTE FUNCTION inventory.copy_low_stock_threshold();

CREATE FUNCTION inventory.propagate_low_stock_threshold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM inventory.stock WHERE product_id = NEW.product_id
    ORDER BY warehouse_id FOR NO KEY UPDATE;
    UPDATE inventory.stock SET low_stock_threshold = NEW.low_stock_threshold WHERE product_id = NEW.product_id;
    RETURN NULL;
END $$;

CREATE TRIGGER propagate_low_stock_threshold AFTER UPDATE OF low_stock_threshold ON inventory.product
    FOR EACH ROW WHEN (OLD.low_stock_threshold IS DISTINCT FROM NEW.low_stock_threshold)
    EXECUTE FUNCTION inventory.propagate_low_stock_threshold();

CREATE FUNCTION inventory.publish_stock_low(of_product uuid, in_warehouse uuid, before bigint)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO inventory.outbox (event_id, type, version, key, payload, occurred_at, request_id)
    SELECT inventory.uuid7(), 'inventory.stock_low', 1, p.product_id,
        json_build_object('product_id', p.product_id, 'warehouse_id', s.warehouse_id,
            'sku', p.sku, 'available', s.on_hand - s.reserved + s.backorder,
            'threshold', s.low_stock_threshold)::text,
        clock_timestamp(), gen_random_uuid()::text
    FROM inventory.stock s JOIN inventory.product p ON p.product_id = s.product_id
    WHERE s.product_id = of_product AND s.warehouse_id = in_warehouse
        AND before > s.low_stock_threshold AND s.on_hand - s.reserved + s.backorder <= s.low_stock_threshold
$$;

CREATE FUNCTION inventory.stock_low_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM inventory.publish_stock_low(
        NEW.product_id, NEW.warehouse_id, OLD.on_hand - OLD.reserved + OLD.backorder);
    RETURN NULL;
END $$;

CREATE TRIGGER stock_low_event AFTER UPDATE OF reserved ON inventory.stock
    FOR EACH ROW WHEN (NEW.reserved > OLD.reserved
        AND NEW.on_hand - NEW.reserved + NEW.backorder <= NEW.low_stock_threshold
        AND OLD.on_hand - OLD.reserved + OLD.backorder > NEW.low_stock_threshold)
    EXECUTE FUNCTION inventory.stock_low_event();

CREATE FUNCTION inventory.movement_stock_low_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM inventory.publish_stock_low(NEW.product_id, NEW.warehouse_id,
        s.on_hand - s.reserved + s.backorder - NEW.delta)
    FROM inventory.stock s
    WHERE s.product_id = NEW.product_id AND s.warehouse_id = NEW.warehouse_id
        AND s.low_stock_threshold IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER movement_stock_low_event AFTER INSERT ON inventory.stock_movement
    FOR EACH ROW WHEN (NEW.delta < 0 AND NEW.reason <> 'sold')
    EXECUTE FUNCTION inventory.movement_stock_low_event();
"""
TRIGGERS = {
    "movement_stock_low_event": "stock_movement",
    "stock_low_event": "stock",
    "propagate_low_stock_threshold": "product",
    "copy_low_stock_threshold": "stock",
}
FUNCTIONS = (
    "movement_stock_low_event",
    "stock_low_event",
    "publish_stock_low(uuid, uuid, bigint)",
    "propagate_low_stock_threshold",
    "copy_low_stock_threshold",
)


def upgrade() -> None:
    op.add_column("stock", sa.Column("low_stock_threshold", sa.BigInteger()), schema=SCHEMA)
    op.execute(
        "UPDATE inventory.stock s SET low_stock_threshold = p.low_stock_threshold FROM inventory.product p"
        " WHERE p.product_id = s.product_id AND p.low_stock_threshold IS NOT NULL"
    )
    for rule in RULES.strip().split("\n\n"):
        op.execute(rule)


def downgrade() -> None:
    for trigger, table in TRIGGERS.items():
        op.execute(f"DROP TRIGGER {trigger} ON {SCHEMA}.{table}")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {SCHEMA}.{function}")
    op.drop_column("stock", "low_stock_threshold", schema=SCHEMA)
