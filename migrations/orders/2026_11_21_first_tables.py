"""first tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "7c1f3a905e21"
down_revision = None
branch_labels = None
depends_on = None

# O3: an order's subtotal is the sum of its lines, and it has lines. Deferred: the order and its
# lines are several rows, and only together they are true.
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
# a line that leaves one order for another would escape the sum above
LINE_ORDER_IS_IMMUTABLE = """
CREATE FUNCTION orders.line_order_is_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a line stays with its order' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER line_order_is_immutable BEFORE UPDATE OF order_id ON orders.order_line
    FOR EACH ROW WHEN (OLD.order_id <> NEW.order_id) EXECUTE FUNCTION orders.line_order_is_immutable();
"""
TIMELINE_IS_APPEND_ONLY = """
CREATE FUNCTION orders.timeline_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the timeline is only added to' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER timeline_is_append_only BEFORE UPDATE OR DELETE ON orders.timeline
    FOR EACH ROW EXECUTE FUNCTION orders.timeline_is_append_only();
"""


def upgrade() -> None:
    _common_tables()
    _order()
    _order_line()
    _timeline()
    _fulfilments()
    for rule in (LINES_MATCH_SUBTOTAL, LINE_ORDER_IS_IMMUTABLE, TIMELINE_IS_APPEND_ONLY):
        for statement in _statements(rule):
            op.execute(statement)


def downgrade() -> None:
    for table in (
        "fulfilment_line",
        "fulfilment",
        "timeline",
        "order_line",
        "order",
        "idempotency_record",
        "inbox",
        "outbox",
    ):
        op.drop_table(table, schema="orders")
    for function in ("lines_match_subtotal", "line_order_is_immutable", "timeline_is_append_only"):
        op.execute(f"DROP FUNCTION orders.{function}()")


def _statements(rule: str) -> list[str]:
    """The function, then its triggers: the driver takes one statement at a time."""
    function, _, triggers = rule.partition("$$;")
    first = f"{function}$$"
    return [first, *(part for part in triggers.split(";") if part.strip())]


def _common_tables() -> None:
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        *_envelope(),
        sa.Column("published_at", sa.TIMESTAMP(timezone=True)),
        sa.PrimaryKeyConstraint("seq", name="pk_outbox"),
        sa.UniqueConstraint("event_id", name="uq_outbox_event_id"),
        schema="orders",
    )
    op.create_index(
        "ix_outbox_unpublished",
        "outbox",
        ["seq"],
        schema="orders",
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_index("ix_outbox_published_at", "outbox", ["published_at"], schema="orders")
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
        _time("received_at"),
        _time("due_at"),
        sa.Column("done_at", sa.TIMESTAMP(timezone=True)),
        sa.PrimaryKeyConstraint("handler", "event_id", name="pk_inbox"),
        sa.CheckConstraint("state IN ('waiting', 'done', 'dead')", name="ck_inbox_state"),
        schema="orders",
    )
    for name, columns in (
        ("ix_inbox_waiting", ["position"]),
        ("ix_inbox_waiting_key", ["key", "position"]),
    ):
        op.create_index(
            name,
            "inbox",
            columns,
            schema="orders",
            postgresql_where=sa.text("state = 'waiting'"),
        )
    op.create_index("ix_inbox_done_at", "inbox", ["done_at"], schema="orders")
    op.create_table(
        "idempotency_record",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        _time("lease_until"),
        sa.Column("response", sa.Text()),
        _time("expires_at"),
        sa.PrimaryKeyConstraint("scope", name="pk_idempotency_record"),
        schema="orders",
    )
    op.create_index(
        "ix_idempotency_record_expires_at", "idempotency_record", ["expires_at"], schema="orders"
    )


def _order() -> None:
    op.create_table(
        "order",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True, start=1001), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        *_texts("status", "payment_status", "fulfilment_status", "currency"),
        *_amounts("subtotal", "discount", "shipping", "tax", "total", "refunded"),
        sa.Column("shipping_address", JSONB(), nullable=False),
        sa.Column("billing_address", JSONB()),
        sa.Column("note", sa.Text()),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        *_texts("provider_payment_status"),
        sa.Column("reservation_id", sa.Uuid(), nullable=False),
        *(_time(name) for name in ("expires_at", "created_at", "updated_at")),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", name="pk_order"),
        sa.UniqueConstraint("number", name="uq_order_number"),
        sa.UniqueConstraint("payment_id", name="uq_order_payment_id"),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'completed', 'cancelled', 'expired')",
            name="ck_order_status",
        ),
        sa.CheckConstraint(
            "payment_status IN ('none', 'authorized', 'paid', 'partially_refunded', 'refunded',"
            " 'voided', 'failed')",
            name="ck_order_payment_status",
        ),
        sa.CheckConstraint(
            "fulfilment_status IN ('unfulfilled', 'partial', 'fulfilled', 'delivered')",
            name="ck_order_fulfilment_status",
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="ck_order_currency"),
        sa.CheckConstraint("total = subtotal - discount + shipping + tax", name="ck_order_total"),
        sa.CheckConstraint(
            "subtotal >= 0 AND discount >= 0 AND shipping >= 0 AND tax >= 0 AND total >= 0"
            " AND refunded >= 0",
            name="ck_order_amounts",
        ),
        sa.CheckConstraint(
            "status IN ('processing', 'completed') OR fulfilment_status = 'unfulfilled'",
            name="ck_order_nothing_shipped",
        ),
        sa.CheckConstraint(
            "status <> 'completed' OR fulfilment_status = 'delivered'", name="ck_order_completed"
        ),
        sa.CheckConstraint(
            "CASE WHEN status IN ('processing', 'completed')"
            " THEN payment_status NOT IN ('none', 'failed')"
            " ELSE status <> 'pending' OR payment_status <> 'paid' END",
            name="ck_order_paid",
        ),
        sa.CheckConstraint("version >= 1", name="ck_order_version"),
        schema="orders",
    )
    op.create_index(
        "ix_order_user_id_created_at",
        "order",
        ["user_id", "created_at", "order_id"],
        schema="orders",
    )
    op.create_index("ix_order_created_at", "order", ["created_at", "order_id"], schema="orders")
    op.create_index(
        "ix_order_pending",
        "order",
        ["expires_at", "order_id"],
        schema="orders",
        postgresql_where=sa.text("status = 'pending'"),
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
        *_amounts("total"),
        sa.PrimaryKeyConstraint("line_id", name="pk_order_line"),
        sa.UniqueConstraint("order_id", "product_id", name="uq_order_line_order_id_product_id"),
        _to("order_id", "order", "fk_order_line_order_id"),
        sa.CheckConstraint("quantity BETWEEN 1 AND 999", name="ck_order_line_quantity"),
        sa.CheckConstraint("fulfilled BETWEEN 0 AND quantity", name="ck_order_line_fulfilled"),
        sa.CheckConstraint("delivered BETWEEN 0 AND fulfilled", name="ck_order_line_delivered"),
        sa.CheckConstraint("unit_price >= 0", name="ck_order_line_unit_price"),
        sa.CheckConstraint("total = unit_price * quantity", name="ck_order_line_total"),
        schema="orders",
    )


def _timeline() -> None:
    op.create_table(
        "timeline",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        *_texts("change", "actor"),
        _time("at"),
        *_texts("reason", "status", "payment_status", "fulfilment_status"),
        sa.PrimaryKeyConstraint("order_id", "version", name="pk_timeline"),
        _to("order_id", "order", "fk_timeline_order_id"),
        schema="orders",
    )


def _fulfilments() -> None:
    op.create_table(
        "fulfilment",
        sa.Column("fulfilment_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        *_texts("status", "carrier", "tracking_number"),
        _time("shipped_at"),
        sa.Column("delivered_at", sa.TIMESTAMP(timezone=True)),
        sa.PrimaryKeyConstraint("fulfilment_id", name="pk_fulfilment"),
        _to("order_id", "order", "fk_fulfilment_order_id"),
        sa.CheckConstraint("status IN ('shipped', 'delivered')", name="ck_fulfilment_status"),
        sa.CheckConstraint(
            "(status = 'delivered') = (delivered_at IS NOT NULL)",
            name="ck_fulfilment_delivered_at",
        ),
        schema="orders",
    )
    op.create_index("ix_fulfilment_order_id", "fulfilment", ["order_id"], schema="orders")
    op.create_table(
        "fulfilment_line",
        sa.Column("fulfilment_id", sa.Uuid(), nullable=False),
        sa.Column("line_id", sa.Uuid(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("fulfilment_id", "line_id", name="pk_fulfilment_line"),
        _to("fulfilment_id", "fulfilment", "fk_fulfilment_line_fulfilment_id"),
        _to("line_id", "order_line", "fk_fulfilment_line_line_id"),
        sa.CheckConstraint("quantity BETWEEN 1 AND 999", name="ck_fulfilment_line_quantity"),
        schema="orders",
    )


def _envelope() -> "list[sa.Column]":
    return [
        *_texts("type"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key", sa.Uuid(), nullable=False),
        *_texts("payload"),
        _time("occurred_at"),
        *_texts("request_id"),
        sa.Column("traceparent", sa.Text()),
    ]


def _texts(*names: str) -> "list[sa.Column]":
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _amounts(*names: str) -> "list[sa.Column]":
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _time(name: str) -> "sa.Column":
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=False)


def _to(column: str, table: str, name: str) -> sa.ForeignKeyConstraint:
    parent = "line_id" if table == "order_line" else f"{table}_id"
    return sa.ForeignKeyConstraint([column], [f"orders.{table}.{parent}"], name=name)
