"""Products may be sold before they are there: so many of each, promised by its main shelf."""

import sqlalchemy as sa
from alembic import op

revision = "47c2e9b1d08a"
down_revision = "b83d05f1c6e2"
branch_labels = None
depends_on = None

SCHEMA = "inventory"
MAIN_WAREHOUSE = "00000000-0000-7000-8000-000000000001"
BEFORE = "0 <= reserved AND reserved <= on_hand"
AFTER = "0 <= reserved AND 0 <= on_hand AND reserved <= on_hand + backorder"

# What is promised stays promised when the limit is lowered; it comes down as goods come or go, or
# are given back: that is seen when the transaction ends, for goods that are sold are given back
# first.
RULES = """
CREATE FUNCTION inventory.copy_backorder_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT backorder_limit, backorder_limit INTO NEW.backorder_limit, NEW.backorder
    FROM inventory.product WHERE product_id = NEW.product_id;
    RETURN NEW;
END $$;

CREATE TRIGGER copy_backorder_limit BEFORE INSERT ON inventory.stock
    FOR EACH ROW WHEN (NEW.warehouse_id = '00000000-0000-7000-8000-000000000001')
    EXECUTE FUNCTION inventory.copy_backorder_limit();

CREATE TRIGGER backorder_only_in_main_warehouse BEFORE INSERT ON inventory.stock
    FOR EACH ROW WHEN (NEW.warehouse_id <> '00000000-0000-7000-8000-000000000001'
        AND (NEW.backorder <> 0 OR NEW.backorder_limit <> 0))
    EXECUTE FUNCTION inventory.raise_check_violation('backorders are of the main warehouse');

CREATE TRIGGER backorder_is_derived
    BEFORE UPDATE OF backorder, backorder_limit ON inventory.stock
    FOR EACH ROW WHEN (pg_trigger_depth() = 0)
    EXECUTE FUNCTION inventory.raise_check_violation('backorders follow the product');

CREATE FUNCTION inventory.propagate_backorder_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE inventory.stock SET backorder_limit = NEW.backorder_limit,
        backorder = greatest(NEW.backorder_limit, reserved - on_hand)
    WHERE product_id = NEW.product_id
        AND warehouse_id = '00000000-0000-7000-8000-000000000001';
    RETURN NULL;
END $$;

CREATE TRIGGER propagate_backorder_limit AFTER UPDATE OF backorder_limit ON inventory.product
    FOR EACH ROW WHEN (OLD.backorder_limit <> NEW.backorder_limit)
    EXECUTE FUNCTION inventory.propagate_backorder_limit();

CREATE FUNCTION inventory.clamp_backorder() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.backorder := least(
        NEW.backorder, greatest(NEW.backorder_limit, NEW.reserved - NEW.on_hand));
    RETURN NEW;
END $$;

CREATE TRIGGER clamp_backorder BEFORE UPDATE OF on_hand ON inventory.stock
    FOR EACH ROW WHEN (NEW.backorder > NEW.backorder_limit)
    EXECUTE FUNCTION inventory.clamp_backorder();

CREATE FUNCTION inventory.clamp_backorder_after_release() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE inventory.stock SET backorder = greatest(backorder_limit, reserved - on_hand)
    WHERE product_id = NEW.product_id AND warehouse_id = NEW.warehouse_id
        AND backorder > greatest(backorder_limit, reserved - on_hand);
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER clamp_backorder_after_release AFTER UPDATE OF reserved ON inventory.stock
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.reserved < OLD.reserved AND NEW.backorder > NEW.backorder_limit)
    EXECUTE FUNCTION inventory.clamp_backorder_after_release();
"""
TRIGGERS = {
    "clamp_backorder_after_release": "stock",
    "clamp_backorder": "stock",
    "propagate_backorder_limit": "product",
    "backorder_is_derived": "stock",
    "backorder_only_in_main_warehouse": "stock",
    "copy_backorder_limit": "stock",
}
FUNCTIONS = (
    "clamp_backorder_after_release",
    "clamp_backorder",
    "propagate_backorder_limit",
    "copy_backorder_limit",
)


def upgrade() -> None:
    for name in ("backorder", "backorder_limit"):
        column = sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
        op.add_column("stock", column, schema=SCHEMA)
    op.execute(
        "UPDATE inventory.stock s SET backorder = p.backorder_limit,"
        " backorder_limit = p.backorder_limit FROM inventory.product p"
        " WHERE p.product_id = s.product_id AND p.backorder_limit > 0"
        f" AND s.warehouse_id = '{MAIN_WAREHOUSE}'"
    )
    _check(AFTER)
    op.create_check_constraint(
        op.f("ck_stock_backorder"),
        "stock",
        "0 <= backorder_limit AND backorder_limit <= backorder",
        schema=SCHEMA,
    )
    for rule in RULES.strip().split("\n\n"):
        op.execute(rule)


def downgrade() -> None:
    for trigger, table in TRIGGERS.items():
        op.execute(f"DROP TRIGGER {trigger} ON {SCHEMA}.{table}")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {SCHEMA}.{function}")
    op.drop_constraint(op.f("ck_stock_backorder"), "stock", schema=SCHEMA)
    # refused while more is promised than is there: the release before cannot know of it
    _check(BEFORE)
    for name in ("backorder_limit", "backorder"):
        op.drop_column("stock", name, schema=SCHEMA)


def _check(rule: str) -> None:
    op.drop_constraint(op.f("ck_stock_reserved"), "stock", schema=SCHEMA)
    op.create_check_constraint(op.f("ck_stock_reserved"), "stock", rule, schema=SCHEMA)
