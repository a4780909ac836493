"""What one statement needs to make a whole reservation, or none of it."""

from alembic import op

revision = "0d62fb85e1a7"
down_revision = "ebf1491f8fd8"
branch_labels = None
depends_on = None

# A statement sees nothing of what was committed while it waited for a lock; inside a function that
# is volatile each statement looks anew. So the customer's other holds are counted behind the lock.
FUNCTIONS = """
CREATE FUNCTION inventory.customer_within_limits(
    customer uuid, product uuid, units bigint, max_unpaid_orders int, max_reserved_units bigint,
    moment timestamptz
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(
        hashtextextended('markethall.inventory.customer.' || customer::text, 0));
    RETURN (
        SELECT count(DISTINCT r.reservation_id) < max_unpaid_orders
            AND coalesce(sum(l.reserved), 0) + units <= max_reserved_units
        FROM inventory.reservation r LEFT JOIN inventory.reservation_line l
            ON l.reservation_id = r.reservation_id AND l.product_id = product
        WHERE r.customer_id = customer AND r.status = 'held' AND r.expires_at > moment
    );
END $$;

CREATE FUNCTION inventory.reserve_stock(of_product uuid, in_warehouse uuid, units bigint)
RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE inventory.stock SET reserved = reserved + units
    WHERE product_id = of_product AND warehouse_id = in_warehouse AND on_hand - reserved >= units;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'not enough unreserved stock';
    END IF;
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    for function in FUNCTIONS.strip().split("\n\n"):
        op.execute(function)


def downgrade() -> None:
    op.execute("DROP FUNCTION inventory.reserve_stock")
    op.execute("DROP FUNCTION inventory.customer_within_limits")
