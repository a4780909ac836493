"""Create the orders schema: carts, orders with their parts, configuration and promotions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "7c1f3a905e21"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "orders"

TABLES = (
    "promotion_customer",
    "promotion_use",
    "promotion",
    "draft_order",
    "configuration",
    "idempotency_record",
    "inbox",
    "outbox",
    "return_line",
    "return",
    "invoice",
    "invoice_counter",
    "fulfilment_line",
    "fulfilment",
    "timeline",
    "order_edit",
    "order_line",
    "cart_line",
    "cart",
    "guest_owner",
    "order",
)

# rejects an order that has no lines, or whose lines do not sum to its subtotal; checked at commit,
# because several statements write an order and its lines
LINES_MATCH_SUBTOTAL = """
CREATE FUNCTION orders.lines_match_subtotal() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted bigint;
    found numeric;
    changed uuid := CASE WHEN TG_OP = 'DELETE' THEN OLD.order_id ELSE NEW.order_id END;
BEGIN
    SELECT subtotal INTO wanted FROM orders."order" WHERE order_id = changed;
    IF wanted IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT sum(total) INTO found FROM orders.order_line WHERE order_id = changed;
    IF found IS NULL OR found <> wanted THEN
        RAISE EXCEPTION 'order %: lines sum to %, subtotal is %', changed, found, wanted
            USING ERRCODE = 'check_violation', CONSTRAINT = 'lines_match_subtotal';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER lines_match_subtotal AFTER INSERT OR UPDATE OF subtotal ON orders."order"
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION orders.lines_match_subtotal();
CREATE CONSTRAINT TRIGGER lines_match_subtotal AFTER INSERT OR DELETE OR UPDATE OF order_id, total
    ON orders.order_line
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION orders.lines_match_subtotal();
"""
# a line may not move to another order, because the sum of the old order would not be checked
LINE_ORDER_IS_IMMUTABLE = """
CREATE FUNCTION orders.line_order_is_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a line stays with its order' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER line_order_is_immutable BEFORE UPDATE OF order_id ON orders.order_line
    FOR EACH ROW WHEN (OLD.order_id <> NEW.order_id)
    EXECUTE FUNCTION orders.line_order_is_immutable();
"""
TIMELINE_IS_APPEND_ONLY = """
CREATE FUNCTION orders.timeline_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the timeline is only added to' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER timeline_is_append_only BEFORE UPDATE OR DELETE ON orders.timeline
    FOR EACH ROW EXECUTE FUNCTION orders.timeline_is_append_only();
"""
# numbers have no gap: the counter goes up by one, and no invoice is changed or deleted
INVOICE_COUNTER_COUNTS = """
CREATE FUNCTION orders.invoice_counter_counts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the next number is one higher' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER invoice_counter_counts BEFORE UPDATE ON orders.invoice_counter
    FOR EACH ROW WHEN (NEW.last_number <> OLD.last_number + 1)
    EXECUTE FUNCTION orders.invoice_counter_counts();
CREATE TRIGGER invoice_counter_stays BEFORE DELETE ON orders.invoice_counter
    FOR EACH ROW EXECUTE FUNCTION orders.invoice_counter_counts();
"""
INVOICE_IS_APPEND_ONLY = """
CREATE FUNCTION orders.invoice_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an invoice does not change' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER invoice_is_append_only BEFORE UPDATE OR DELETE ON orders.invoice
    FOR EACH ROW EXECUTE FUNCTION orders.invoice_is_append_only();
"""


def upgrade() -> None:
    _order()
    _guest_owner()
    _cart()
    _order_line()
    _order_edit()
    _draft_order()
    _timeline()
    _fulfilment()
    _return()
    _invoice()
    _configuration()
    _promotion()
    _triggers()
    _outbox()
    _inbox()
    _idempotency_record()


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table, schema=SCHEMA)
    for function in (
        "lines_match_subtotal",
        "line_order_is_immutable",
        "timeline_is_append_only",
        "invoice_counter_counts",
        "invoice_is_append_only",
    ):
        op.execute(f"DROP FUNCTION {SCHEMA}.{function}()")


def _order() -> None:
    op.create_table(
        "order",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True, start=1001), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("is_guest", sa.Boolean(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("email_key", sa.Text(), nullable=True),
        *_texts("status", "payment_status", "fulfilment_status", "currency"),
        *_amounts("subtotal", "discount", "shipping", "tax", "total"),
        sa.Column("included_tax", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("shipping_line", JSONB(), nullable=True),
        sa.Column("promotions", JSONB(), nullable=True),
        sa.Column("number_prefix", sa.Text(), nullable=False, server_default="MH-"),
        *_amounts("refunded"),
        sa.Column("payment_amount", sa.BigInteger(), nullable=True),
        sa.Column("additional_paid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("shipping_address", JSONB(), nullable=False),
        sa.Column("billing_address", JSONB(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False, server_default="{}"),
        sa.Column("staff_note", sa.Text(), nullable=True),
        sa.Column("on_hold", sa.Boolean(), nullable=False, server_default="false"),
        sa.Column("metadata", JSONB(), nullable=False, server_default="{}"),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        *_texts("provider_payment_status"),
        sa.Column("payment_version", sa.Integer(), nullable=False),
        sa.Column("reservation_id", sa.Uuid(), nullable=False),
        sa.Column("cart_id", sa.Uuid(), nullable=True),
        *(
            _timestamp(name)
            for name in ("expires_at", "overdue_check_at", "created_at", "updated_at")
        ),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_order")),
        sa.UniqueConstraint("number", name=op.f("uq_order_number")),
        sa.UniqueConstraint("payment_id", name=op.f("uq_order_payment_id")),
        sa.UniqueConstraint("cart_id", name=op.f("uq_order_cart_id")),
        *_checks("order", ORDER_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_order_user_id_created_at", "order", ["user_id", "created_at", "order_id"])
    _index("ix_order_email_key", "order", ["email_key", "created_at", "order_id"])
    _index("ix_order_created_at", "order", ["created_at", "order_id"])
    _index(
        "ix_order_overdue", "order", ["overdue_check_at", "order_id"], where="status = 'pending'"
    )


def _guest_owner() -> None:
    op.create_table(
        "guest_owner",
        sa.Column("guest_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("guest_id", name=op.f("pk_guest_owner")),
        schema=SCHEMA,
    )


def _cart() -> None:
    op.create_table(
        "cart",
        sa.Column("cart_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("is_guest", sa.Boolean(), nullable=False),
        *_texts("status"),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("shipping_address", JSONB(), nullable=True),
        sa.Column("billing_address", JSONB(), nullable=True),
        sa.Column("shipping_method", sa.Text(), nullable=True),
        sa.Column("voucher_code", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("metadata", JSONB(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("merged_into", sa.Uuid(), nullable=True),
        *(_timestamp(name) for name in ("created_at", "updated_at")),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("cart_id", name=op.f("pk_cart")),
        sa.UniqueConstraint("order_id", name=op.f("uq_cart_order_id")),
        *_checks("cart", CART_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_cart_user_id", "cart", ["user_id"])
    _index("ix_cart_updated_at", "cart", ["updated_at"])
    op.create_table(
        "cart_line",
        sa.Column("cart_id", sa.Uuid(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        *_texts("sku", "name"),
        *_amounts("seen_amount"),
        *_texts("seen_currency"),
        sa.Column("seen_available", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("cart_id", "product_id", name=op.f("pk_cart_line")),
        sa.ForeignKeyConstraint(
            ["cart_id"],
            [f"{SCHEMA}.cart.cart_id"],
            name=op.f("fk_cart_line_cart_id"),
            ondelete="CASCADE",
        ),
        *_checks("cart_line", CART_LINE_CHECKS),
        schema=SCHEMA,
    )


def _order_line() -> None:
    op.create_table(
        "order_line",
        sa.Column("line_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        *_texts("sku", "name"),
        *_amounts("unit_price"),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("fulfilled", sa.Integer(), nullable=False),
        sa.Column("delivered", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False, server_default="0"),
        *(
            sa.Column(name, sa.Integer(), nullable=False, server_default="0")
            for name in ("cancelled", "in_return", "returned")
        ),
        *_amounts("total"),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
            for name in ("discount", "tax", "included_tax")
        ),
        sa.Column("breakdown", JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("line_id", name=op.f("pk_order_line")),
        sa.UniqueConstraint(
            "order_id", "product_id", name=op.f("uq_order_line_order_id_product_id")
        ),
        _foreign_key("order_line", "order_id", "order.order_id"),
        *_checks("order_line", ORDER_LINE_CHECKS),
        schema=SCHEMA,
    )


def _draft_order() -> None:
    op.create_table(
        "draft_order",
        sa.Column("draft_order_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("fields", JSONB(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        _timestamp("created_at"),
        _timestamp("updated_at"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("draft_order_id", name=op.f("pk_draft_order")),
        sa.UniqueConstraint("order_id", name=op.f("uq_draft_order_order_id")),
        *_checks("draft_order", DRAFT_ORDER_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_draft_order_created_at", "draft_order", ["created_at", "draft_order_id"])


def _order_edit() -> None:
    op.create_table(
        "order_edit",
        sa.Column("edit_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        *_amounts("total"),
        _timestamp("created_at"),
        sa.Column("status", sa.Text(), server_default="applied", nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("refunded", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reservation_id", sa.Uuid(), nullable=True),
        _timestamp("expires_at", nullable=True),
        sa.Column("content", JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("edit_id", name=op.f("pk_order_edit")),
        sa.UniqueConstraint("order_id", "version", name=op.f("uq_order_edit_order_id_version")),
        sa.UniqueConstraint("payment_id", name=op.f("uq_order_edit_payment_id")),
        _foreign_key("order_edit", "order_id", "order.order_id"),
        *_checks(
            "order_edit",
            {
                "total": "total >= 0",
                "status": "status IN ('open', 'applied', 'dropped')",
                "payment": "(payment_id IS NULL) = (amount IS NULL)"
                " AND (payment_id IS NULL) = (expires_at IS NULL)"
                " AND (payment_id IS NOT NULL OR status = 'applied' AND reservation_id IS NULL)",
                "amount": "amount > 0",
                "refunded": "refunded = 0"
                " OR refunded > 0 AND status = 'applied' AND refunded <= amount",
                "content": "(status = 'open') = (content IS NOT NULL)",
            },
        ),
        schema=SCHEMA,
    )
    _index(
        "uq_order_edit_open",
        "order_edit",
        ["order_id"],
        unique=True,
        where="status = 'open'",
    )
    _index(
        "ix_order_edit_overdue", "order_edit", ["expires_at", "edit_id"], where="status = 'open'"
    )


def _timeline() -> None:
    op.create_table(
        "timeline",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        *_texts("change", "actor"),
        _timestamp("at"),
        *_texts("reason", "status", "payment_status", "fulfilment_status"),
        sa.PrimaryKeyConstraint("order_id", "version", name=op.f("pk_timeline")),
        _foreign_key("timeline", "order_id", "order.order_id"),
        schema=SCHEMA,
    )


def _fulfilment() -> None:
    op.create_table(
        "fulfilment",
        sa.Column("fulfilment_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        *_texts("status"),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("carrier", "tracking_number")),
        _timestamp("shipped_at"),
        _timestamp("delivered_at", nullable=True),
        _timestamp("failed_at", nullable=True),
        sa.Column("restocked", sa.Boolean(), nullable=False, server_default="false"),
        sa.PrimaryKeyConstraint("fulfilment_id", name=op.f("pk_fulfilment")),
        _foreign_key("fulfilment", "order_id", "order.order_id"),
        *_checks("fulfilment", FULFILMENT_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_fulfilment_order_id", "fulfilment", ["order_id"])
    op.create_table(
        "fulfilment_line",
        sa.Column("fulfilment_id", sa.Uuid(), nullable=False),
        sa.Column("line_id", sa.Uuid(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("fulfilment_id", "line_id", name=op.f("pk_fulfilment_line")),
        _foreign_key("fulfilment_line", "fulfilment_id", "fulfilment.fulfilment_id"),
        _foreign_key("fulfilment_line", "line_id", "order_line.line_id"),
        *_checks("fulfilment_line", FULFILMENT_LINE_CHECKS),
        schema=SCHEMA,
    )


def _return() -> None:
    op.create_table(
        "return",
        sa.Column("return_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        *_texts("status", "reason"),
        sa.Column("receipts", JSONB(), nullable=False),
        *_amounts("refund", "shipping_refund"),
        sa.Column("refunded", sa.BigInteger(), nullable=True),
        _timestamp("created_at"),
        _timestamp("updated_at"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("return_id", name=op.f("pk_return")),
        _foreign_key("return", "order_id", "order.order_id"),
        *_checks("return", RETURN_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_return_order_id", "return", ["order_id", "return_id"])
    op.create_index(
        op.f("uq_return_shipping_refund"),
        "return",
        ["order_id"],
        unique=True,
        schema=SCHEMA,
        postgresql_where=sa.text("shipping_refund > 0"),
    )
    op.create_table(
        "return_line",
        sa.Column("return_id", sa.Uuid(), nullable=False),
        sa.Column("line_id", sa.Uuid(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("quantity", "restocked", "scrapped")
        ),
        *_amounts("price", "discount", "tax", "included_tax"),
        sa.PrimaryKeyConstraint("return_id", "line_id", name=op.f("pk_return_line")),
        _foreign_key("return_line", "return_id", "return.return_id"),
        _foreign_key("return_line", "line_id", "order_line.line_id"),
        *_checks("return_line", RETURN_LINE_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_return_line_line_id", "return_line", ["line_id"])


def _invoice() -> None:
    op.create_table(
        "invoice_counter",
        *_texts("kind"),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_invoice_counter")),
        *_checks("invoice_counter", INVOICE_COUNTER_CHECKS),
        schema=SCHEMA,
    )
    op.create_table(
        "invoice",
        *_texts("kind"),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("source_id", sa.Uuid(), nullable=False),
        _timestamp("issued_at"),
        sa.Column("document", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "number", name=op.f("pk_invoice")),
        sa.UniqueConstraint("kind", "source_id", name=op.f("uq_invoice_kind_source_id")),
        _foreign_key("invoice", "order_id", "order.order_id"),
        *_checks("invoice", INVOICE_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_invoice_order_id", "invoice", ["order_id"])


def _configuration() -> None:
    op.create_table(
        "configuration",
        sa.Column("item_id", sa.Uuid(), nullable=False),
        *_texts("kind", "unique_key"),
        sa.Column("fields", JSONB(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_configuration")),
        sa.UniqueConstraint("kind", "unique_key", name=op.f("uq_configuration_kind_unique_key")),
        *_checks("configuration", CONFIGURATION_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_configuration_kind_item_id", "configuration", ["kind", "item_id"])


CART_CHECKS = {
    "status": "status IN ('open', 'checked_out', 'merged')",
    "order_id": "(status = 'checked_out') = (order_id IS NOT NULL)",
    "merged_into": "(status = 'merged') = (merged_into IS NOT NULL) AND merged_into <> cart_id",
    "currency": "currency ~ '^[A-Z]{3}$'",
    "email": "length(email) <= 254",
    "metadata": "jsonb_typeof(metadata) = 'object'",
    "version": "version >= 1",
}
CART_LINE_CHECKS = {
    "position": "position BETWEEN 1 AND 100",
    "quantity": "quantity BETWEEN 1 AND 999",
    "seen_available": "seen_available BETWEEN 0 AND 999",
}


def _promotion() -> None:
    op.create_table(
        "promotion",
        sa.Column("promotion_id", sa.Uuid(), nullable=False),
        sa.Column("code_key", sa.Text(), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("usage_limit", sa.Integer(), nullable=True),
        sa.Column("per_customer_limit", sa.Integer(), nullable=True),
        sa.Column("first_order", sa.Boolean(), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("fields", JSONB(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("promotion_id", name=op.f("pk_promotion")),
        *_checks("promotion", PROMOTION_CHECKS),
        schema=SCHEMA,
    )
    _index("ix_promotion_code_key", "promotion", ["code_key", "promotion_id"])
    _index("uq_promotion_active_code_key", "promotion", ["code_key"], "is_active", unique=True)
    _index(
        "ix_promotion_automatic", "promotion", ["promotion_id"], "is_active AND code_key IS NULL"
    )
    _promotion_use()
    _promotion_customer()


def _promotion_use() -> None:
    op.create_table(
        "promotion_use",
        sa.Column("promotion_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("used_by", sa.Uuid(), nullable=False),
        sa.Column("is_first_order", sa.Boolean(), nullable=False),
        _timestamp("used_at"),
        sa.PrimaryKeyConstraint("promotion_id", "order_id", name=op.f("pk_promotion_use")),
        _foreign_key(
            "promotion_use", "promotion_id", "promotion.promotion_id", on_delete="CASCADE"
        ),
        _foreign_key("promotion_use", "order_id", "order.order_id"),
        schema=SCHEMA,
    )
    _index("ix_promotion_use_order_id", "promotion_use", ["order_id"])
    _index(
        "uq_promotion_use_first_order", "promotion_use", ["used_by"], "is_first_order", unique=True
    )


def _promotion_customer() -> None:
    op.create_table(
        "promotion_customer",
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("promotion_id", sa.Uuid(), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "promotion_id", name=op.f("pk_promotion_customer")),
        _foreign_key(
            "promotion_customer", "promotion_id", "promotion.promotion_id", on_delete="CASCADE"
        ),
        *_checks("promotion_customer", {"used": "used >= 0"}),
        schema=SCHEMA,
    )
    _index("ix_promotion_customer_promotion_id", "promotion_customer", ["promotion_id"])


PROMOTION_CHECKS = {
    "code_key": "code_key <> ''",
    "limits": "usage_limit >= 1 AND per_customer_limit >= 1",
    "used": "used >= 0 AND used <= usage_limit",
    "fields": "jsonb_typeof(fields) = 'object'",
    "version": "version >= 1",
}
CONFIGURATION_CHECKS = {
    "kind": "kind IN ('shop', 'shipping_method', 'tax_rate')",
    "fields": "jsonb_typeof(fields) = 'object'",
    "version": "version >= 1",
}
ORDER_CHECKS = {
    "status": "status IN ('pending', 'processing', 'completed', 'cancelled', 'expired')",
    "payment_status": "payment_status IN ('none', 'authorized', 'paid', 'partially_refunded',"
    " 'refunded', 'voided', 'failed')",
    "fulfilment_status": "fulfilment_status IN ('unfulfilled', 'partial', 'fulfilled',"
    " 'delivered')",
    "email": "(email IS NULL) = (email_key IS NULL) AND length(email) <= 254",
    "currency": "currency ~ '^[A-Z]{3}$'",
    "total": "total = subtotal - discount + shipping + tax",
    "amounts": "subtotal >= 0 AND discount >= 0 AND shipping >= 0 AND tax >= 0 AND total >= 0"
    " AND refunded >= 0",
    "included_tax": "included_tax BETWEEN 0 AND total",
    "payment_amount": "payment_amount + additional_paid >= total",
    "additional_paid": "additional_paid = 0 OR additional_paid > 0 AND payment_amount IS NOT NULL",
    "nothing_shipped": "status IN ('processing', 'completed') OR fulfilment_status = 'unfulfilled'",
    "completed": "status <> 'completed' OR fulfilment_status IN ('delivered', 'unfulfilled')",
    "paid": "CASE WHEN status IN ('processing', 'completed')"
    " THEN payment_status NOT IN ('none', 'failed')"
    " ELSE status <> 'pending' OR payment_status <> 'paid' END",
    "tags": "cardinality(tags) <= 50 AND length(array_to_string(tags, '')) <= 2500",
    "staff_note": "length(staff_note) <= 5000",
    "metadata": "jsonb_typeof(metadata) = 'object' AND length(metadata::text) <= 160000"
    " AND jsonb_array_length(jsonb_path_query_array(metadata, '$.*')) <= 50"
    """ AND NOT jsonb_path_exists(metadata, '$.* ? (@.type() <> "string")')""",
    "version": "version >= 1",
}
ORDER_LINE_CHECKS = {
    "discount": "discount BETWEEN 0 AND total",
    "tax": "tax >= 0 AND included_tax BETWEEN 0 AND total - discount"
    " AND (tax = 0 OR included_tax = 0)",
    "quantity": "quantity BETWEEN 1 AND 999",
    "fulfilled": "fulfilled BETWEEN 0 AND quantity",
    "delivered": "delivered BETWEEN 0 AND fulfilled",
    "failed": "failed BETWEEN 0 AND quantity - fulfilled",
    "cancelled": "cancelled BETWEEN 0 AND quantity - fulfilled - failed",
    "returned": "in_return >= 0 AND returned >= 0 AND in_return + returned <= delivered",
    "unit_price": "unit_price >= 0",
    "total": "total = unit_price * quantity",
}
DRAFT_ORDER_CHECKS = {
    "status": "status IN ('open', 'completed')",
    "completed": "(status = 'completed') = (order_id IS NOT NULL)",
    "fields": "jsonb_typeof(fields) = 'object'",
    "version": "version >= 1",
}
FULFILMENT_CHECKS = {
    "status": "status IN ('shipped', 'delivered', 'lost', 'returned_to_sender')",
    "delivered_at": "(status = 'delivered') = (delivered_at IS NOT NULL)",
    "failed_at": "(status IN ('lost', 'returned_to_sender')) = (failed_at IS NOT NULL)",
    "restocked": "NOT restocked OR status = 'returned_to_sender'",
}
RETURN_CHECKS = {
    "status": "status IN ('requested', 'approved', 'rejected', 'received', 'closed', 'cancelled')",
    "receipts": "jsonb_typeof(receipts) = 'array'",
    "refund": "0 <= shipping_refund AND shipping_refund <= refund"
    " AND (refund = 0 OR status = 'closed')",
    "refunded": "refunded IS NULL OR (status = 'closed' AND refunded BETWEEN 0 AND refund)",
    "version": "version >= 1",
}
RETURN_LINE_CHECKS = {
    "quantity": "quantity BETWEEN 1 AND 999",
    "received": "restocked >= 0 AND scrapped >= 0 AND restocked + scrapped <= quantity",
    "refund": "discount BETWEEN 0 AND price AND tax >= 0"
    " AND included_tax BETWEEN 0 AND price - discount AND (tax = 0 OR included_tax = 0)",
}
FULFILMENT_LINE_CHECKS = {
    "quantity": "quantity BETWEEN 1 AND 999",
}
_INVOICE_KIND = "kind IN ('invoice', 'credit_note')"
INVOICE_COUNTER_CHECKS = {"kind": _INVOICE_KIND, "last_number": "last_number >= 1"}
INVOICE_CHECKS = {
    "kind": _INVOICE_KIND,
    "number": "number >= 1",
    "document": "jsonb_typeof(document) = 'object'",
}


def _triggers() -> None:
    for sql in (
        LINES_MATCH_SUBTOTAL,
        LINE_ORDER_IS_IMMUTABLE,
        TIMELINE_IS_APPEND_ONLY,
        INVOICE_COUNTER_COUNTS,
        INVOICE_IS_APPEND_ONLY,
    ):
        for statement in _statements(sql):
            op.execute(statement)


def _statements(sql: str) -> list[str]:
    """Split the SQL into single statements, because asyncpg accepts only one at a time."""
    function, _, triggers = sql.partition("$$;")
    return [f"{function}$$", *(part for part in triggers.split(";") if part.strip())]


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        *_envelope(),
        _timestamp("published_at", nullable=True),
        _timestamp("confirmed_at", nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_event_id")),
        schema=SCHEMA,
    )
    _index("ix_outbox_unpublished", "outbox", ["seq"], where="published_at IS NULL")
    _index(
        "ix_outbox_unconfirmed",
        "outbox",
        ["seq"],
        where="published_at IS NOT NULL AND confirmed_at IS NULL",
    )
    _index("ix_outbox_confirmed_at", "outbox", ["confirmed_at"])


def _inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source_seq", sa.BigInteger(), nullable=False),
        *_envelope(),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        _timestamp("received_at"),
        _timestamp("due_at"),
        _timestamp("done_at", nullable=True),
        sa.PrimaryKeyConstraint("handler", "event_id", name=op.f("pk_inbox")),
        *_checks("inbox", {"state": "state IN ('waiting', 'done', 'dead')"}),
        schema=SCHEMA,
    )
    _index("ix_inbox_waiting", "inbox", ["position"], where="state = 'waiting'")
    _index("ix_inbox_waiting_key", "inbox", ["key", "position"], where="state = 'waiting'")
    _index("ix_inbox_done_at", "inbox", ["done_at"])


def _idempotency_record() -> None:
    op.create_table(
        "idempotency_record",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        _timestamp("lease_until"),
        sa.Column("response", sa.Text(), nullable=True),
        _timestamp("expires_at"),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_idempotency_record")),
        schema=SCHEMA,
    )
    _index("ix_idempotency_record_expires_at", "idempotency_record", ["expires_at"])


def _envelope() -> list[sa.Column]:
    return [
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        _timestamp("occurred_at"),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
    ]


def _timestamp(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def _checks(table: str, conditions: dict[str, str]) -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))
        for name, condition in conditions.items()
    ]


def _amounts(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _texts(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _foreign_key(
    table: str, column: str, target: str, *, on_delete: str | None = None
) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column],
        [f"{SCHEMA}.{target}"],
        name=op.f(f"fk_{table}_{column}"),
        ondelete=on_delete,
    )


def _index(
    name: str, table: str, columns: list[str], where: str | None = None, *, unique: bool = False
) -> None:
    op.create_index(
        op.f(name),
        table,
        columns,
        schema=SCHEMA,
        unique=unique,
        postgresql_where=sa.text(where) if where else None,
    )
