"""Warehouses can be added, closed and deleted. The main one always stays, and is never closed."""

import sqlalchemy as sa
from alembic import op

revision = "e41b7c90a5d3"
down_revision = "5b7e90c4d12f"
branch_labels = None
depends_on = None

SCHEMA = "inventory"
MAIN_WAREHOUSE = "00000000-0000-7000-8000-000000000001"

# what is brought into a warehouse holds a share of its row, so that nobody closes it meanwhile
RULES = """
CREATE FUNCTION inventory.check_warehouse_empty() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM inventory.stock
        WHERE warehouse_id = NEW.warehouse_id AND on_hand + reserved > 0
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME,
            MESSAGE = 'a warehouse that has goods cannot be closed';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER close_only_empty_warehouse BEFORE UPDATE OF active ON inventory.warehouse
    FOR EACH ROW WHEN (OLD.active AND NOT NEW.active)
    EXECUTE FUNCTION inventory.check_warehouse_empty();

CREATE TRIGGER keep_main_warehouse AFTER DELETE ON inventory.warehouse
    FOR EACH ROW WHEN (OLD.warehouse_id = '00000000-0000-7000-8000-000000000001')
    EXECUTE FUNCTION inventory.raise_check_violation('the main warehouse stays');

CREATE FUNCTION inventory.check_warehouse_active() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM inventory.warehouse WHERE warehouse_id = NEW.warehouse_id AND active FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME,
            MESSAGE = 'no goods come into a warehouse that is closed';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER movement_into_active_warehouse BEFORE INSERT ON inventory.stock_movement
    FOR EACH ROW WHEN (NEW.delta > 0 AND NEW.warehouse_id <> '00000000-0000-7000-8000-000000000001')
    EXECUTE FUNCTION inventory.check_warehouse_active();
"""


def upgrade() -> None:
    for column in (
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("active", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
    ):
        op.add_column("warehouse", column, schema=SCHEMA)
    for name, rule in (
        ("priority", "priority >= 0"),
        ("version", "version >= 1"),
        ("main", f"active OR warehouse_id <> '{MAIN_WAREHOUSE}'"),
    ):
        op.create_check_constraint(op.f(f"ck_warehouse_{name}"), "warehouse", rule, schema=SCHEMA)
    # a warehouse is emptied or deleted by looking at its own shelves, not at all there are
    op.create_index(op.f("ix_stock_warehouse_id"), "stock", ["warehouse_id"], schema=SCHEMA)
    for rule in RULES.strip().split("\n\n"):
        op.execute(rule)


def downgrade() -> None:
    for trigger, table in (
        ("movement_into_active_warehouse", "stock_movement"),
        ("keep_main_warehouse", "warehouse"),
        ("close_only_empty_warehouse", "warehouse"),
    ):
        op.execute(f"DROP TRIGGER {trigger} ON {SCHEMA}.{table}")
    for function in ("check_warehouse_active", "check_warehouse_empty"):
        op.execute(f"DROP FUNCTION {SCHEMA}.{function}")
    op.drop_index(op.f("ix_stock_warehouse_id"), "stock", schema=SCHEMA)
    for name in ("main", "version", "priority"):
        op.drop_constraint(op.f(f"ck_warehouse_{name}"), "warehouse", schema=SCHEMA)
    for column in ("version", "active", "priority"):
        op.drop_column("warehouse", column, schema=SCHEMA)
