"""First tables: products, stock and reservations, the rules that keep them true, and what every
context has.
"""

from uuid import UUID

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "8c2d41a7f3be"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "inventory"
MAIN_WAREHOUSE = UUID("00000000-0000-7000-8000-000000000001")

TABLES = (
    "idempotency_record", "inbox", "outbox", "reservation_line", "reservation", "stock_movement",
    "stock", "product", "warehouse",
)  # fmt: skip
FUNCTIONS = (
    "raise_check_violation", "apply_movement", "check_reserved", "assert_reserved(uuid, uuid)", "write_product_json",
    "format_utc(timestamptz)",
)  # fmt: skip

# `face` is the product's JSON as the API shows it, up to what changes with every sale, `available`,
# which closes it: a list is read far more often than a product is changed.
# `reserved` of a shelf is what the live lines of its product have, read through their own index
RULES = """
CREATE FUNCTION inventory.raise_check_violation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = TG_ARGV[0],
        SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;

CREATE FUNCTION inventory.format_utc(moment timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

CREATE FUNCTION inventory.write_product_json() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT left(row_to_json(document)::text, -1) INTO NEW.product_json FROM (
        SELECT NEW.product_id, NEW.sku, NEW.name, NEW.description,
            json_build_object('amount', NEW.price_amount, 'currency', NEW.price_currency) AS price,
            NEW.category, NEW.family, NEW.options, NEW.tags, NEW.images, NEW.attributes,
            NEW.status, NEW.version, inventory.format_utc(NEW.created_at) AS created_at,
            inventory.format_utc(NEW.updated_at) AS updated_at
    ) document;
    RETURN NEW;
END $$;

CREATE TRIGGER write_product_json BEFORE INSERT OR UPDATE ON inventory.product
    FOR EACH ROW EXECUTE FUNCTION inventory.write_product_json();

CREATE TRIGGER stock_starts_empty BEFORE INSERT ON inventory.stock
    FOR EACH ROW WHEN (NEW.on_hand <> 0 OR NEW.reserved <> 0)
    EXECUTE FUNCTION inventory.raise_check_violation('stock starts empty');

CREATE TRIGGER on_hand_changes_by_movement BEFORE UPDATE OF on_hand ON inventory.stock
    FOR EACH ROW WHEN (pg_trigger_depth() = 0)
    EXECUTE FUNCTION inventory.raise_check_violation('on_hand changes only by a movement');

CREATE TRIGGER movements_are_append_only BEFORE UPDATE OR DELETE ON inventory.stock_movement
    FOR EACH ROW EXECUTE FUNCTION inventory.raise_check_violation('the stock ledger is only added to');

CREATE FUNCTION inventory.apply_movement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE inventory.stock SET on_hand = NEW.on_hand_after
    WHERE product_id = NEW.product_id AND warehouse_id = NEW.warehouse_id
        AND on_hand + NEW.delta = NEW.on_hand_after;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME,
            MESSAGE = 'a movement must say what is on hand after it';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER apply_movement AFTER INSERT ON inventory.stock_movement
    FOR EACH ROW EXECUTE FUNCTION inventory.apply_movement();

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


def upgrade() -> None:
    _warehouse()
    _product()
    _stock()
    _stock_movement()
    _reservation()
    _reservation_line()
    _outbox()
    _inbox()
    _idempotency_record()
    for rule in RULES.strip().split("\n\n"):
        op.execute(rule)


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table, schema=SCHEMA)
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {SCHEMA}.{function}")


def _warehouse() -> None:
    warehouse = op.create_table(
        "warehouse",
        _id("warehouse_id"),
        _text("name"),
        sa.PrimaryKeyConstraint("warehouse_id", name=op.f("pk_warehouse")),
        schema=SCHEMA,
    )
    op.bulk_insert(warehouse, [{"warehouse_id": MAIN_WAREHOUSE, "name": "Main"}])


def _product() -> None:
    op.create_table(
        "product",
        _id("product_id"),
        _text("sku"),
        _text("name"),
        # lists are sorted without regard to case, byte by byte: the same on every server
        sa.Column(
            "name_key",
            sa.Text(collation="C"),
            sa.Computed("lower(name)", persisted=True),
            nullable=False,
        ),
        _text("description"),
        _number("price_amount"),
        _text("price_currency"),
        _text("category", nullable=True),
        _text("family", nullable=True),
        sa.Column("options", postgresql.JSONB(), nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("images", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("attributes", postgresql.JSONB(), nullable=False),
        _text("status"),
        sa.Column("version", sa.Integer(), nullable=False),
        _time("created_at"),
        _time("updated_at"),
        _text("product_json"),
        sa.PrimaryKeyConstraint("product_id", name=op.f("pk_product")),
        _check("product", "status", "status IN ('draft', 'active', 'archived')"),
        _check("product", "price", "price_amount >= 0"),
        _check("product", "version", "version >= 1"),
        schema=SCHEMA,
    )
    _index("uq_product_sku", "product", [sa.literal_column("lower(sku)")], unique=True)
    _index("ix_product_tags", "product", ["tags"], using="gin")
    for name, columns in (
        ("created_at", ["created_at", "product_id"]),
        ("price", ["price_amount", "product_id"]),
        ("name", ["name_key", "product_id"]),
        ("category", ["category", "created_at"]),
        ("family", ["family"]),
    ):
        _index(f"ix_product_{name}", "product", columns, where="status = 'active'")


def _stock() -> None:
    op.create_table(
        "stock",
        _id("product_id"),
        _id("warehouse_id"),
        _number("on_hand"),
        _number("reserved"),
        sa.PrimaryKeyConstraint("product_id", "warehouse_id", name=op.f("pk_stock")),
        _reference("stock", ["product_id"], "product"),
        _reference("stock", ["warehouse_id"], "warehouse"),
        _check("stock", "reserved", "0 <= reserved AND reserved <= on_hand"),
        schema=SCHEMA,
    )


def _stock_movement() -> None:
    reasons = (
        "reason IN ('received', 'adjusted', 'counted', 'damaged', 'lost', 'found', 'returned',"
        " 'sold')"
    )
    op.create_table(
        "stock_movement",
        _id("movement_id"),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _id("product_id"),
        _id("warehouse_id"),
        _number("delta"),
        _number("on_hand_after"),
        _text("reason"),
        _text("note"),
        _id("reference", nullable=True),
        _text("actor"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("movement_id", name=op.f("pk_stock_movement")),
        _reference("stock_movement", ["product_id", "warehouse_id"], "stock"),
        _check("stock_movement", "reason", reasons),
        _check("stock_movement", "delta", "delta <> 0 OR reason = 'counted'"),
        _check(
            "stock_movement",
            "sold",
            "reason <> 'sold' OR (delta < 0 AND reference IS NOT NULL)",
        ),
        schema=SCHEMA,
    )
    _index("ix_stock_movement_product_id", "stock_movement", ["product_id", "number"])
    _index(
        "uq_stock_movement_reference",
        "stock_movement",
        ["reference", "product_id"],
        unique=True,
        where="reference IS NOT NULL",
    )


def _reservation() -> None:
    statuses = "status IN ('held', 'committed', 'consumed', 'released', 'expired')"
    repeated = ["reservation_id", "status", "expires_at"]
    op.create_table(
        "reservation",
        _id("reservation_id"),
        _id("order_id", nullable=True),
        _id("customer_id", nullable=True),
        _text("status"),
        _time("expires_at"),
        sa.PrimaryKeyConstraint("reservation_id", name=op.f("pk_reservation")),
        sa.UniqueConstraint(*repeated, name=op.f(f"uq_reservation_{'_'.join(repeated)}")),
        _check("reservation", "status", statuses),
        _check("reservation", "order", "order_id IS NOT NULL OR status = 'released'"),
        schema=SCHEMA,
    )
    _index("ix_reservation_order_id", "reservation", ["order_id", "reservation_id"])
    _index("ix_reservation_overdue", "reservation", ["expires_at"], where="status = 'held'")


def _reservation_line() -> None:
    live = "CASE WHEN status IN ('held', 'committed') THEN quantity - consumed ELSE 0 END"
    op.create_table(
        "reservation_line",
        _id("reservation_id"),
        _id("product_id"),
        _id("warehouse_id"),
        _text("status"),
        _time("expires_at"),
        _number("quantity"),
        _number("consumed"),
        sa.Column("reserved", sa.BigInteger(), sa.Computed(live, persisted=True), nullable=False),
        _text("sku"),
        _text("name"),
        _number("unit_amount"),
        _text("unit_currency"),
        sa.PrimaryKeyConstraint(
            "reservation_id", "product_id", "warehouse_id", name=op.f("pk_reservation_line")
        ),
        _reference(
            "reservation_line",
            ["reservation_id", "status", "expires_at"],
            "reservation",
            onupdate="CASCADE",
        ),
        _reference("reservation_line", ["product_id", "warehouse_id"], "stock"),
        _check("reservation_line", "quantity", "quantity > 0"),
        _check("reservation_line", "consumed", "0 <= consumed AND consumed <= quantity"),
        _check("reservation_line", "held", "consumed = 0 OR status <> 'held'"),
        schema=SCHEMA,
    )
    _index(
        "ix_reservation_line_live",
        "reservation_line",
        ["product_id", "warehouse_id"],
        include=["reserved"],
        where="reserved > 0",
    )
    _index(
        "ix_reservation_line_overdue",
        "reservation_line",
        ["product_id", "expires_at"],
        include=["reserved", "warehouse_id"],
        where="status = 'held'",
    )


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _id("event_id"),
        *_envelope(),
        _time("published_at", nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sa.UniqueConstraint("event_id", name=op.f("uq_outbox_event_id")),
        schema=SCHEMA,
    )
    _index("ix_outbox_unpublished", "outbox", ["seq"], where="published_at IS NULL")
    _index("ix_outbox_published_at", "outbox", ["published_at"])


def _inbox() -> None:
    op.create_table(
        "inbox",
        _text("handler"),
        _id("event_id"),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _number("source_seq"),
        *_envelope(),
        _text("state"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _text("error"),
        _time("received_at"),
        _time("due_at"),
        _time("done_at", nullable=True),
        sa.PrimaryKeyConstraint("handler", "event_id", name=op.f("pk_inbox")),
        _check("inbox", "state", "state IN ('waiting', 'done', 'dead')"),
        schema=SCHEMA,
    )
    _index("ix_inbox_waiting", "inbox", ["position"], where="state = 'waiting'")
    _index("ix_inbox_waiting_key", "inbox", ["key", "position"], where="state = 'waiting'")
    _index("ix_inbox_done_at", "inbox", ["done_at"])


def _idempotency_record() -> None:
    op.create_table(
        "idempotency_record",
        _text("scope"),
        _text("request_hash"),
        _id("id"),
        _time("lease_until"),
        _text("response", nullable=True),
        _time("expires_at"),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_idempotency_record")),
        schema=SCHEMA,
    )
    _index("ix_idempotency_record_expires_at", "idempotency_record", ["expires_at"])


def _envelope() -> list[sa.Column]:
    return [
        _text("type"),
        sa.Column("version", sa.Integer(), nullable=False),
        _id("key"),
        _text("payload"),
        _time("occurred_at"),
        _text("request_id"),
        _text("traceparent", nullable=True),
    ]


def _id(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Uuid(), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _number(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _time(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def _check(table: str, name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(rule, name=op.f(f"ck_{table}_{name}"))


def _reference(
    table: str, columns: list[str], target: str, *, onupdate: str | None = None
) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        columns,
        [f"{SCHEMA}.{target}.{column}" for column in columns],
        name=op.f(f"fk_{table}_{'_'.join(columns)}"),
        onupdate=onupdate,
    )


def _index(
    name: str,
    table: str,
    columns: list,
    *,
    unique: bool = False,
    where: str | None = None,
    using: str | None = None,
    include: list[str] | None = None,
) -> None:
    options = {
        "postgresql_where": sa.text(where) if where else None,
        "postgresql_using": using,
        "postgresql_include": include,
    }
    given = {option: value for option, value in options.items() if value is not None}
    op.create_index(op.f(name), table, columns, schema=SCHEMA, unique=unique, **given)
