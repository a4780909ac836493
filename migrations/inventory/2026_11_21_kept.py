"""What the live lines of a shelf have is counted where it changes, not summed up at every commit.

The sum was read through an index, twice per reservation, while the shelf was locked: with some
thousand orders on one product nobody could buy it any more.
"""

import sqlalchemy as sa
from alembic import op

revision = "e7409b6d15fc"
down_revision = "5b1e90c47d2a"
branch_labels = None
depends_on = None

SCHEMA = "inventory"

SUMS = """
CREATE FUNCTION inventory.assert_reserved(of_product uuid, in_warehouse uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM inventory.stock s
    WHERE s.product_id = of_product AND s.warehouse_id = in_warehouse
        AND s.reserved <> (
            SELECT coalesce(sum(l.reserved), 0) FROM inventory.reservation_line l
            WHERE l.product_id = of_product AND l.warehouse_id = in_warehouse AND l.reserved > 0
        );
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = 'reserved_is_the_sum',
            MESSAGE = format('reserved of product %s is not what its live lines have', of_product);
    END IF;
END $$;

CREATE FUNCTION inventory.check_reserved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM inventory.assert_reserved(OLD.product_id, OLD.warehouse_id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM inventory.assert_reserved(NEW.product_id, NEW.warehouse_id);
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER reserved_is_the_sum AFTER UPDATE OF reserved ON inventory.stock
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.reserved <> NEW.reserved) EXECUTE FUNCTION inventory.check_reserved();

CREATE CONSTRAINT TRIGGER inserted_line_in_sum AFTER INSERT ON inventory.reservation_line
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.reserved > 0) EXECUTE FUNCTION inventory.check_reserved();

CREATE CONSTRAINT TRIGGER updated_line_in_sum AFTER UPDATE ON inventory.reservation_line
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN ((OLD.reserved, OLD.product_id, OLD.warehouse_id)
        IS DISTINCT FROM (NEW.reserved, NEW.product_id, NEW.warehouse_id))
    EXECUTE FUNCTION inventory.check_reserved();

CREATE CONSTRAINT TRIGGER deleted_line_in_sum AFTER DELETE ON inventory.reservation_line
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.reserved > 0) EXECUTE FUNCTION inventory.check_reserved();
"""
NO_SUMS = """
DROP TRIGGER reserved_is_the_sum ON inventory.stock;

DROP TRIGGER inserted_line_in_sum ON inventory.reservation_line;

DROP TRIGGER updated_line_in_sum ON inventory.reservation_line;

DROP TRIGGER deleted_line_in_sum ON inventory.reservation_line;

DROP FUNCTION inventory.check_reserved;

DROP FUNCTION inventory.assert_reserved(uuid, uuid);
"""

# A new line counts at once: its shelf was locked when the goods were taken. A changed one counts at
# the end of the transaction, when whoever changes several holds has locked their shelves in order.
# What is looked at before all lines are counted is looked at again after it, by way of `reserved_by_lines`.
COUNTS = """
CREATE FUNCTION inventory.add_reserved_by_lines(of_product uuid, in_warehouse uuid, more bigint) RETURNS void
LANGUAGE sql AS $$
    UPDATE inventory.stock SET reserved_by_lines = reserved_by_lines + more
    WHERE product_id = of_product AND warehouse_id = in_warehouse
$$;

CREATE FUNCTION inventory.count_reserved_by_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE inventory.stock SET reserved_by_lines = reserved_by_lines + NEW.reserved
        WHERE product_id = NEW.product_id AND warehouse_id = NEW.warehouse_id;
    ELSE
        PERFORM inventory.add_reserved_by_lines(OLD.product_id, OLD.warehouse_id, -OLD.reserved);
        IF TG_OP = 'UPDATE' THEN
            PERFORM inventory.add_reserved_by_lines(NEW.product_id, NEW.warehouse_id, NEW.reserved);
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION inventory.check_reserved_by_lines() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM inventory.stock WHERE product_id = NEW.product_id
        AND warehouse_id = NEW.warehouse_id AND reserved <> reserved_by_lines;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF TG_ARGV[0] = 'early' THEN
        UPDATE inventory.stock SET reserved_by_lines = reserved_by_lines
        WHERE product_id = NEW.product_id AND warehouse_id = NEW.warehouse_id;
        RETURN NULL;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME, MESSAGE =
        format('reserved of product %s is not what its live lines have', NEW.product_id);
END $$;

CREATE TRIGGER reserved_by_lines_is_derived BEFORE UPDATE OF reserved_by_lines ON inventory.stock
    FOR EACH ROW WHEN (pg_trigger_depth() = 0)
    EXECUTE FUNCTION inventory.raise_check_violation('reserved_by_lines changes only by a line');

CREATE TRIGGER reserved_by_lines_starts_at_zero BEFORE INSERT ON inventory.stock
    FOR EACH ROW WHEN (NEW.reserved_by_lines <> 0) EXECUTE FUNCTION inventory.raise_check_violation('stock starts empty');

CREATE TRIGGER count_inserted_line AFTER INSERT ON inventory.reservation_line
    FOR EACH ROW WHEN (NEW.reserved > 0) EXECUTE FUNCTION inventory.count_reserved_by_lines();

CREATE CONSTRAINT TRIGGER count_updated_line AFTER UPDATE ON inventory.reservation_line
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN ((OLD.reserved, OLD.product_id, OLD.warehouse_id)
        IS DISTINCT FROM (NEW.reserved, NEW.product_id, NEW.warehouse_id))
    EXECUTE FUNCTION inventory.count_reserved_by_lines();

CREATE CONSTRAINT TRIGGER count_deleted_line AFTER DELETE ON inventory.reservation_line
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.reserved > 0) EXECUTE FUNCTION inventory.count_reserved_by_lines();

CREATE CONSTRAINT TRIGGER reserved_equals_lines_recheck AFTER UPDATE OF reserved ON inventory.stock
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.reserved <> NEW.reserved_by_lines) EXECUTE FUNCTION inventory.check_reserved_by_lines('early');

CREATE CONSTRAINT TRIGGER reserved_equals_lines AFTER UPDATE OF reserved_by_lines ON inventory.stock
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.reserved <> NEW.reserved_by_lines) EXECUTE FUNCTION inventory.check_reserved_by_lines('late');
"""
NO_COUNTS = """
DROP TRIGGER reserved_by_lines_is_derived ON inventory.stock;

DROP TRIGGER reserved_by_lines_starts_at_zero ON inventory.stock;

DROP TRIGGER count_inserted_line ON inventory.reservation_line;

DROP TRIGGER count_updated_line ON inventory.reservation_line;

DROP TRIGGER count_deleted_line ON inventory.reservation_line;

DROP TRIGGER reserved_equals_lines_recheck ON inventory.stock;

DROP TRIGGER reserved_equals_lines ON inventory.stock;

DROP FUNCTION inventory.check_reserved_by_lines;

DROP FUNCTION inventory.count_reserved_by_lines;

DROP FUNCTION inventory.add_reserved_by_lines(uuid, uuid, bigint);
"""


def upgrade() -> None:
    reserved_by_lines = sa.Column(
        "reserved_by_lines", sa.BigInteger(), server_default="0", nullable=False
    )
    op.add_column("stock", reserved_by_lines, schema=SCHEMA)
    op.execute(f"UPDATE {SCHEMA}.stock SET reserved_by_lines = reserved WHERE reserved > 0")
    _run(NO_SUMS)
    _run(COUNTS)


def downgrade() -> None:
    _run(NO_COUNTS)
    _run(SUMS)
    op.drop_column("stock", "reserved_by_lines", schema=SCHEMA)


def _run(statements: str) -> None:
    for statement in statements.strip().split("\n\n"):
        op.execute(statement)
