"""Create the inventory schema: catalogue, stock, reservations, imports.

The functions and triggers are in the SQL file beside this one.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

revision = "a4c81f0be273"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "inventory"
MAIN_WAREHOUSE = "00000000-0000-7000-8000-000000000001"
ACTIVE = "status = 'active'"
HELD = "status = 'held'"
REASONS = (
    "'received', 'adjusted', 'counted', 'damaged', 'lost', 'found', 'returned', 'sold',"
    " 'transferred'"
)
FUNCTIONS_AND_TRIGGERS = Path(__file__).with_suffix(".sql")

# in the order of creation: a table comes after the tables that its foreign keys reference
TABLES = (
    "warehouse",
    "category",
    "family",
    "family_slug",
    "product",
    "search_word",
    "stock",
    "stock_movement",
    "reservation",
    "reservation_line",
    "partial_release",
    "media",
    "import_upload",
    "import_part",
    "import_job",
    "import_note",
    "import_member",
    "outbox",
    "inbox",
    "idempotency_record",
)

FUNCTIONS = (
    "add_reserved_by_lines",
    "apply_movement",
    "check_category_cycle",
    "check_reserved_by_lines",
    "check_warehouse_active",
    "check_warehouse_empty",
    "clamp_backorder",
    "clamp_backorder_after_release",
    "copy_backorder_limit",
    "copy_low_stock_threshold",
    "count_reserved_by_lines",
    "customer_within_limits",
    "effective_backorder_limit",
    "format_utc",
    "movement_stock_low_event",
    "price_at",
    "propagate_backorder_limit",
    "propagate_low_stock_threshold",
    "publish_stock_low",
    "raise_check_violation",
    "reserve_stock",
    "scheduled_price_json",
    "stock_low_event",
    "uuid7",
    "write_product_json",
)

# The extension is used to correct mistyped words; search works without it. It is created in the
# schema `public`, because an extension exists only once per database.
TRIGRAM_EXTENSION = """
DO $$ BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
EXCEPTION
    WHEN insufficient_privilege OR undefined_file OR feature_not_supported OR invalid_schema_name
        OR duplicate_object OR unique_violation OR object_not_in_prerequisite_state THEN
        RAISE NOTICE 'no pg_trgm here (%): mistyped words will find nothing', SQLERRM;
END $$
"""


def upgrade() -> None:
    _warehouse()
    _category()
    _family()
    _product()
    _search_word()
    _stock()
    _stock_movement()
    _reservation()
    _reservation_line()
    _partial_release()
    _media()
    _imports()
    _outbox()
    _inbox()
    _idempotency_record()
    for statement in FUNCTIONS_AND_TRIGGERS.read_text().strip().split("\n\n"):
        op.execute(statement)
    op.execute(TRIGRAM_EXTENSION)


def downgrade() -> None:
    """Drop everything except the extension pg_trgm, because other schemas may use it."""
    for table in reversed(TABLES):
        op.drop_table(table, schema=SCHEMA)
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {SCHEMA}.{function}")


def _warehouse() -> None:
    op.create_table(
        "warehouse",
        sa.Column("warehouse_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), server_default="0", nullable=False),
        sa.Column("active", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("warehouse_id", name=op.f("pk_warehouse")),
        *_checks(
            "warehouse",
            {
                "main": "active OR warehouse_id <> '00000000-0000-7000-8000-000000000001'",
                "priority": "priority >= 0",
                "version": "version >= 1",
            },
        ),
        schema=SCHEMA,
    )
    warehouse = sa.table("warehouse", sa.column("warehouse_id"), sa.column("name"), schema=SCHEMA)
    op.bulk_insert(warehouse, [{"warehouse_id": MAIN_WAREHOUSE, "name": "Main"}])


def _category() -> None:
    op.create_table(
        "category",
        sa.Column("category_id", sa.Uuid(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("category_key", sa.Text(collation="C"), nullable=False),
        sa.Column("label_key", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("parent", sa.Text(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("translations", JSONB(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("category_id", name=op.f("pk_category")),
        sa.UniqueConstraint("category", name=op.f("uq_category_category")),
        sa.UniqueConstraint("category_key", name=op.f("uq_category_category_key")),
        _foreign_key("category", "parent", "category.category"),
        *_checks(
            "category",
            {
                "parent": "parent <> category",
                "position": "position >= 0",
                "version": "version >= 1",
            },
        ),
        schema=SCHEMA,
    )
    _index("ix_category_parent", "category", ["parent"])
    _index("ix_category_label_key", "category", ["label_key"])
    # Partial, so that saving a category does not block writes of its products. In Postgres, an
    # update that sets a column of a unique index that is not partial locks the row FOR UPDATE.
    # Writes of rows with a foreign key to the row wait for this lock.
    _index(
        "uq_category_label",
        "category",
        ["label_key", "parent"],
        unique=True,
        where="parent IS NOT NULL",
    )
    _index("uq_category_root_label", "category", ["label_key"], unique=True, where="parent IS NULL")


def _family() -> None:
    op.create_table(
        "family",
        sa.Column("family_id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("label_key", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("images", ARRAY(sa.Text()), nullable=False),
        sa.Column("seo_title", sa.Text(), nullable=True),
        sa.Column("seo_description", sa.Text(), nullable=True),
        sa.Column("metadata", JSONB(), nullable=False),
        sa.Column("translations", JSONB(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _timestamp("created_at"),
        _timestamp("updated_at"),
        sa.PrimaryKeyConstraint("family_id", name=op.f("pk_family")),
        sa.UniqueConstraint("label", name=op.f("uq_family_label")),
        sa.UniqueConstraint("label_key", name=op.f("uq_family_label_key")),
        sa.UniqueConstraint("number", name=op.f("uq_family_number")),
        _foreign_key("family", "category", "category.category"),
        *_checks(
            "family", {"status": "status IN ('active', 'archived')", "version": "version >= 1"}
        ),
        schema=SCHEMA,
    )
    _index("ix_family_archived", "family", ["label"], where="status = 'archived'")
    _index("ix_family_category", "family", ["category"])
    op.create_table(
        "family_slug",
        sa.Column("slug", sa.Text(collation="C"), nullable=False),
        sa.Column("family_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_family_slug")),
        _foreign_key("family_slug", "family_id", "family.family_id"),
        schema=SCHEMA,
    )
    _index("ix_family_slug_family_id", "family_slug", ["family_id"])


def _product() -> None:
    op.create_table(
        "product",
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("sku_key", sa.Text(collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(collation="C"), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("price_amount", sa.BigInteger(), nullable=False),
        sa.Column("price_currency", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("family", sa.Text(), nullable=True),
        sa.Column("options", JSONB(), nullable=False),
        sa.Column("option_keys", JSONB(), nullable=False),
        sa.Column("tags", ARRAY(sa.Text()), nullable=False),
        sa.Column("tag_keys", ARRAY(sa.Text()), nullable=False),
        sa.Column("images", ARRAY(sa.Text()), nullable=False),
        sa.Column("attributes", JSONB(), nullable=False),
        sa.Column("attribute_keys", JSONB(), nullable=False),
        sa.Column("barcode", sa.Text(), nullable=True),
        sa.Column("weight_grams", sa.BigInteger(), nullable=True),
        sa.Column("tax_class", sa.Text(), server_default="standard", nullable=False),
        sa.Column("compare_at", sa.BigInteger(), nullable=True),
        sa.Column("prices", JSONB(), server_default="[]", nullable=False),
        sa.Column("has_scheduled_price", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("translations", JSONB(), server_default="{}", nullable=False),
        sa.Column("backorder_limit", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("inventory_policy", sa.Text(), server_default="deny", nullable=False),
        sa.Column("track_inventory", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("low_stock_threshold", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _timestamp("created_at"),
        _timestamp("updated_at"),
        sa.Column("search", TSVECTOR(), server_default="", nullable=False),
        sa.Column("product_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("product_id", name=op.f("pk_product")),
        _foreign_key("product", "category", "category.category"),
        _foreign_key("product", "family", "family.label"),
        *_checks(
            "product",
            {
                "status": "status IN ('draft', 'active', 'archived')",
                "backorder_limit": "backorder_limit >= 0",
                "inventory_policy": "inventory_policy IN ('deny', 'continue')",
                "compare_at": "compare_at >= 0",
                "low_stock_threshold": "low_stock_threshold >= 0",
                "price": "price_amount >= 0",
                "version": "version >= 1",
                "weight": "weight_grams >= 0",
            },
        ),
        schema=SCHEMA,
    )
    _index(
        "ix_product_category_created_at",
        "product",
        ["category", "created_at", "product_id"],
        where=ACTIVE,
    )
    _index(
        "ix_product_category_name", "product", ["category", "name_key", "product_id"], where=ACTIVE
    )
    _index(
        "ix_product_category_price",
        "product",
        ["category", "price_amount", "product_id"],
        where=ACTIVE,
    )
    _index("ix_product_created_at", "product", ["created_at", "product_id"], where=ACTIVE)
    _index("ix_product_family", "product", ["family", "created_at", "product_id"])
    _index(
        "ix_product_label_keys",
        "product",
        ["option_keys", "attribute_keys"],
        postgresql_using="gin",
        postgresql_ops={"option_keys": "jsonb_path_ops", "attribute_keys": "jsonb_path_ops"},
    )
    _index("ix_product_name", "product", ["name_key", "product_id"], where=ACTIVE)
    _index("ix_product_price", "product", ["price_amount", "product_id"], where=ACTIVE)
    _index("ix_product_search", "product", ["search"], postgresql_using="gin")
    _index("ix_product_tag_keys", "product", ["tag_keys"], postgresql_using="gin")
    # partial, so that saving a product does not block reservations: an update that sets a column of
    # a unique index that is not partial locks the row FOR UPDATE
    _index("uq_product_sku", "product", ["sku_key"], unique=True, where="sku_key IS NOT NULL")


def _search_word() -> None:
    op.create_table(
        "search_word",
        sa.Column("word", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("word", name=op.f("pk_search_word")),
        schema=SCHEMA,
    )


def _stock() -> None:
    op.create_table(
        "stock",
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("warehouse_id", sa.Uuid(), nullable=False),
        sa.Column("on_hand", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("reserved_by_lines", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("backorder", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("backorder_limit", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("low_stock_threshold", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("product_id", "warehouse_id", name=op.f("pk_stock")),
        _foreign_key("stock", "product_id", "product.product_id"),
        _foreign_key("stock", "warehouse_id", "warehouse.warehouse_id"),
        *_checks(
            "stock",
            {
                "backorder": "0 <= backorder_limit AND backorder_limit <= backorder",
                "reserved": "0 <= reserved AND 0 <= on_hand AND reserved <= on_hand + backorder",
            },
        ),
        schema=SCHEMA,
    )
    _index("ix_stock_warehouse_id", "stock", ["warehouse_id"])


def _stock_movement() -> None:
    op.create_table(
        "stock_movement",
        sa.Column("movement_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("warehouse_id", sa.Uuid(), nullable=False),
        sa.Column("delta", sa.BigInteger(), nullable=False),
        sa.Column("on_hand_after", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("reference", sa.Uuid(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("movement_id", name=op.f("pk_stock_movement")),
        sa.ForeignKeyConstraint(
            ["product_id", "warehouse_id"],
            ["inventory.stock.product_id", "inventory.stock.warehouse_id"],
            name=op.f("fk_stock_movement_product_id_warehouse_id"),
        ),
        *_checks(
            "stock_movement",
            {
                "delta": "delta <> 0 OR reason = 'counted'",
                "sold": "reason <> 'sold' OR (delta < 0 AND reference IS NOT NULL)",
                "transferred": "reason <> 'transferred' OR reference IS NOT NULL",
                "reason": f"reason IN ({REASONS})",
            },
        ),
        schema=SCHEMA,
    )
    _index("ix_stock_movement_product_id", "stock_movement", ["product_id", "number"])
    _index(
        "uq_stock_movement_reference",
        "stock_movement",
        ["reference", "product_id", "warehouse_id"],
        unique=True,
        where="reference IS NOT NULL",
    )


def _reservation() -> None:
    op.create_table(
        "reservation",
        sa.Column("reservation_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("customer_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column(
            "reserved_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        _timestamp("expires_at"),
        sa.PrimaryKeyConstraint("reservation_id", name=op.f("pk_reservation")),
        sa.UniqueConstraint(
            "reservation_id",
            "status",
            "expires_at",
            name=op.f("uq_reservation_reservation_id_status_expires_at"),
        ),
        *_checks(
            "reservation",
            {
                "extended": "expires_at <= reserved_at + interval '91 days'",
                "order": "order_id IS NOT NULL OR status = 'released'",
                "status": "status IN ('held', 'committed', 'consumed', 'released', 'expired')",
            },
        ),
        schema=SCHEMA,
    )
    _index("ix_reservation_customer_id", "reservation", ["customer_id", "expires_at"], where=HELD)
    _index("ix_reservation_order_id", "reservation", ["order_id", "reservation_id"])
    _index("ix_reservation_overdue", "reservation", ["expires_at"], where=HELD)


def _reservation_line() -> None:
    op.create_table(
        "reservation_line",
        sa.Column("reservation_id", sa.Uuid(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("warehouse_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        _timestamp("expires_at"),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("consumed", sa.BigInteger(), nullable=False),
        sa.Column("released", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "reserved",
            sa.BigInteger(),
            sa.Computed(
                "CASE WHEN status IN ('held', 'committed') THEN quantity - consumed ELSE 0 END",
                persisted=True,
            ),
            nullable=False,
        ),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("unit_amount", sa.BigInteger(), nullable=False),
        sa.Column("unit_currency", sa.Text(), nullable=False),
        sa.Column("tax_class", sa.Text(), server_default="standard", nullable=False),
        sa.Column("weight_grams", sa.BigInteger(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("tags", ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint(
            "reservation_id", "product_id", "warehouse_id", name=op.f("pk_reservation_line")
        ),
        sa.ForeignKeyConstraint(
            ["product_id", "warehouse_id"],
            ["inventory.stock.product_id", "inventory.stock.warehouse_id"],
            name=op.f("fk_reservation_line_product_id_warehouse_id"),
        ),
        sa.ForeignKeyConstraint(
            ["reservation_id", "status", "expires_at"],
            [
                "inventory.reservation.reservation_id",
                "inventory.reservation.status",
                "inventory.reservation.expires_at",
            ],
            name=op.f("fk_reservation_line_reservation_id_status_expires_at"),
            onupdate="CASCADE",
        ),
        *_checks(
            "reservation_line",
            {
                "held": "consumed = 0 OR status <> 'held'",
                "consumed": "0 <= consumed AND consumed <= quantity",
                "quantity": "quantity >= 0 AND quantity + released > 0",
                "released": "released >= 0",
            },
        ),
        schema=SCHEMA,
    )
    _index(
        "ix_reservation_line_live",
        "reservation_line",
        ["product_id", "warehouse_id"],
        where="reserved > 0",
        postgresql_include=["reserved"],
    )
    _index(
        "ix_reservation_line_overdue",
        "reservation_line",
        ["product_id", "expires_at"],
        where=HELD,
        postgresql_include=["reserved", "warehouse_id"],
    )


def _partial_release() -> None:
    op.create_table(
        "partial_release",
        sa.Column("release_id", sa.Uuid(), nullable=False),
        sa.Column("reservation_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("release_id", name=op.f("pk_partial_release")),
        _foreign_key("partial_release", "reservation_id", "reservation.reservation_id"),
        schema=SCHEMA,
    )


def _media() -> None:
    op.create_table(
        "media",
        sa.Column("media_id", sa.Uuid(), nullable=False),
        sa.Column("storage_key", sa.Uuid(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("widths", ARRAY(sa.Integer()), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("media_id", name=op.f("pk_media")),
        sa.UniqueConstraint("storage_key", name=op.f("uq_media_storage_key")),
        *_checks(
            "media",
            {
                "size": "width BETWEEN 1 AND 16383 AND height BETWEEN 1 AND 16383",
                "widths": "width = ANY(widths)",
            },
        ),
        schema=SCHEMA,
    )


def _imports() -> None:
    op.create_table(
        "import_upload",
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        _timestamp("created_at"),
        sa.PrimaryKeyConstraint("upload_id", name=op.f("pk_import_upload")),
        schema=SCHEMA,
    )
    _index("ix_import_upload_created_at", "import_upload", ["created_at"])
    op.create_table(
        "import_part",
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("upload_id", "number", name=op.f("pk_import_part")),
        _foreign_key("import_part", "upload_id", "import_upload.upload_id", ondelete="CASCADE"),
        schema=SCHEMA,
    )
    op.create_table(
        "import_job",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("with_stock", sa.Boolean(), nullable=False),
        sa.Column("missing", sa.Text(), nullable=False),
        sa.Column("fetch_images", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("position_offset", sa.BigInteger(), nullable=False),
        sa.Column("position_line", sa.BigInteger(), nullable=False),
        sa.Column("in_oversized_row", sa.Boolean(), nullable=False),
        sa.Column("truncated_handle", sa.Text(), nullable=False),
        sa.Column("read", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("unchanged", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("stock_changed", sa.BigInteger(), nullable=False),
        sa.Column("stock_skipped", sa.BigInteger(), nullable=False),
        sa.Column("archived", sa.BigInteger(), nullable=False),
        sa.Column("warnings", sa.BigInteger(), nullable=False),
        sa.Column("families_created", sa.BigInteger(), nullable=False),
        sa.Column("families_updated", sa.BigInteger(), nullable=False),
        sa.Column("changed_fields", JSONB(), nullable=False),
        sa.Column("note_counts", JSONB(), nullable=False),
        sa.Column("failure_code", sa.Text(), nullable=False),
        sa.Column("failure_message", sa.Text(), nullable=False),
        _timestamp("created_at"),
        _timestamp("started_at", nullable=True),
        _timestamp("finished_at", nullable=True),
        _timestamp("progressed_at", nullable=True),
        sa.Column("token", sa.Uuid(), nullable=True),
        _timestamp("lease_until", nullable=True),
        sa.PrimaryKeyConstraint("import_id", name=op.f("pk_import_job")),
        sa.UniqueConstraint("upload_id", name=op.f("uq_import_job_upload_id")),
        *_checks(
            "import_job",
            {
                "finished": "(finished_at IS NOT NULL) = (status IN ('done', 'failed'))",
                "missing": "missing IN ('keep', 'archive')",
                "format": "format IN ('csv', 'ndjson', 'shopify', 'woocommerce', 'families')",
                "status": "status IN ('waiting', 'running', 'done', 'failed')",
                "counts": "position_offset >= 0 AND read >= 0",
            },
        ),
        schema=SCHEMA,
    )
    _index(
        "ix_import_job_open", "import_job", ["created_at", "import_id"], where="finished_at IS NULL"
    )
    op.create_table(
        "import_note",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("import_id", "kind", "number", name=op.f("pk_import_note")),
        _foreign_key("import_note", "import_id", "import_job.import_id", ondelete="CASCADE"),
        *_checks("import_note", {"kind": "kind IN ('error', 'warning', 'change')"}),
        schema=SCHEMA,
    )
    op.create_table(
        "import_member",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("product_id", sa.Uuid(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("import_id", "product_id", name=op.f("pk_import_member")),
        _foreign_key("import_member", "import_id", "import_job.import_id", ondelete="CASCADE"),
        schema=SCHEMA,
    )


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


def _foreign_key(
    table: str, column: str, target: str, *, ondelete: str | None = None
) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], [f"{SCHEMA}.{target}"], name=op.f(f"fk_{table}_{column}"), ondelete=ondelete
    )


def _index(
    name: str,
    table: str,
    columns: list[str | sa.ColumnElement[str]],
    *,
    where: str | None = None,
    **options: object,
) -> None:
    op.create_index(
        op.f(name),
        table,
        columns,
        schema=SCHEMA,
        postgresql_where=sa.text(where) if where else None,
        **options,
    )
