"""The tables of the schema `inventory`. Triggers and their functions are in the migration."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

from markethall.inventory.stock.domain.warehouses import MAIN_WAREHOUSE
from markethall.shared.composition.sql import context_metadata
from markethall.shared.persistence.postgres import sql_literal
from markethall.shared.persistence.sql import timestamp_column

metadata = context_metadata("inventory")

ACTIVE, HELD, COMMITTED = sql_literal("active"), sql_literal("held"), sql_literal("committed")


def _text(name: str, **options: Any) -> "sa.Column[str]":
    options.setdefault("nullable", False)
    return sa.Column(name, sa.Text, **options)


def _units(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger, nullable=False)


warehouses = sa.Table(
    "warehouse",
    metadata,
    sa.Column("warehouse_id", sa.Uuid, primary_key=True),
    _text("name"),
    sa.Column("priority", sa.Integer, server_default="0", nullable=False),
    sa.Column("active", sa.Boolean, server_default="true", nullable=False),
    sa.Column("version", sa.Integer, server_default="1", nullable=False),
    sa.CheckConstraint("priority >= 0", name="priority"),
    sa.CheckConstraint("version >= 1", name="version"),
    sa.CheckConstraint(f"active OR warehouse_id <> '{MAIN_WAREHOUSE}'", name="main"),
)

categories = sa.Table(
    "category",
    metadata,
    sa.Column("category_id", sa.Uuid, primary_key=True),
    # what products name; a trigger makes the row when one is the first
    sa.Column("category", sa.Text, nullable=False, unique=True),
    _text("name"),
    sa.Column("parent", sa.Text, sa.ForeignKey("inventory.category.category")),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("translations", JSONB, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.CheckConstraint("parent <> category", name="parent"),
    sa.CheckConstraint("position >= 0", name="position"),
    sa.CheckConstraint("version >= 1", name="version"),
)
sa.Index("ix_category_parent", categories.c.parent)

products = sa.Table(
    "product",
    metadata,
    sa.Column("product_id", sa.Uuid, primary_key=True),
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
    sa.Column("price_amount", sa.BigInteger, nullable=False),
    _text("price_currency"),
    sa.Column("category", sa.Text, sa.ForeignKey(categories.c.category)),
    _text("family", nullable=True),
    sa.Column("options", JSONB, nullable=False),
    sa.Column("tags", ARRAY(sa.Text), nullable=False),
    sa.Column("images", ARRAY(sa.Text), nullable=False),
    sa.Column("attributes", JSONB, nullable=False),
    _text("barcode", nullable=True),
    sa.Column("weight_grams", sa.BigInteger),
    # the defaults are for a process of an older release, in the time of an update
    _text("tax_class", server_default="standard"),
    sa.Column("compare_at", sa.BigInteger),
    # further prices; some may hold for a time in the product's own currency: then it is `timed`,
    # which a trigger says
    sa.Column("prices", JSONB, nullable=False, server_default="[]"),
    sa.Column("has_scheduled_price", sa.Boolean, nullable=False, server_default="false"),
    sa.Column("translations", JSONB, nullable=False, server_default="{}"),
    sa.Column("backorder_limit", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("low_stock_threshold", sa.BigInteger),
    _text("status"),
    sa.Column("version", sa.Integer, nullable=False),
    timestamp_column("created_at"),
    timestamp_column("updated_at"),
    # the words by which it is found, made by domain.search_text
    sa.Column("search", TSVECTOR, nullable=False, server_default=""),
    # contract.Product as JSON up to what changes with time: `available`, which closes it, and the
    # price if it is timed; written by a trigger
    _text("product_json"),
    sa.CheckConstraint("status IN ('draft', 'active', 'archived')", name="status"),
    sa.CheckConstraint("price_amount >= 0", name="price"),
    sa.CheckConstraint("version >= 1", name="version"),
    sa.CheckConstraint("compare_at >= 0", name="compare_at"),
    sa.CheckConstraint("weight_grams >= 0", name="weight"),
    sa.CheckConstraint("backorder_limit >= 0", name="backorder_limit"),
    sa.CheckConstraint("low_stock_threshold >= 0", name="low_stock_threshold"),
)
_active: dict[str, Any] = {"postgresql_where": products.c.status == ACTIVE}
sa.Index("uq_product_sku", sa.func.lower(products.c.sku), unique=True)
sa.Index("ix_product_created_at", products.c.created_at, products.c.product_id, **_active)
sa.Index("ix_product_price", products.c.price_amount, products.c.product_id, **_active)
sa.Index("ix_product_name", products.c.name_key, products.c.product_id, **_active)
for _name, _key in (
    ("created_at", products.c.created_at),
    ("price", products.c.price_amount),
    ("name", products.c.name_key),
):
    sa.Index(
        f"ix_product_category_{_name}", products.c.category, _key, products.c.product_id, **_active
    )
sa.Index("ix_product_family", products.c.family, **_active)
sa.Index("ix_product_tags", products.c.tags, postgresql_using="gin")
sa.Index("ix_product_search", products.c.search, postgresql_using="gin")

# words that a mistyped one may have been; one that no product has any more does no harm
vocabulary = sa.Table(
    "search_word", metadata, sa.Column("word", sa.Text(collation="C"), primary_key=True)
)

stock = sa.Table(
    "stock",
    metadata,
    sa.Column("product_id", sa.ForeignKey(products.c.product_id), primary_key=True),
    sa.Column("warehouse_id", sa.ForeignKey(warehouses.c.warehouse_id), primary_key=True),
    _units("on_hand"),
    _units("reserved"),
    # what the live lines of the shelf have: counted by triggers, and the same as `reserved`
    sa.Column("reserved_by_lines", sa.BigInteger, nullable=False, server_default="0"),
    # of the main warehouse alone, and changed by triggers: how many may be sold before they are
    # there. More than the limit where more were promised before it was lowered, until goods move
    # or are given back
    sa.Column("backorder", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("backorder_limit", sa.BigInteger, nullable=False, server_default="0"),
    # the product's threshold, kept by triggers; one that falls to it tells so
    sa.Column("low_stock_threshold", sa.BigInteger),
    sa.CheckConstraint(
        "0 <= reserved AND 0 <= on_hand AND reserved <= on_hand + backorder", name="reserved"
    ),
    sa.CheckConstraint("0 <= backorder_limit AND backorder_limit <= backorder", name="backorder"),
)

sa.Index("ix_stock_warehouse_id", stock.c.warehouse_id)

_stock_key = ["product_id", "warehouse_id"]

movements = sa.Table(
    "stock_movement",
    metadata,
    sa.Column("movement_id", sa.Uuid, primary_key=True),
    # counts up per product: a movement is numbered while its stock row is locked
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("product_id", sa.Uuid, nullable=False),
    sa.Column("warehouse_id", sa.Uuid, nullable=False),
    _units("delta"),
    _units("on_hand_after"),
    _text("reason"),
    _text("note"),
    sa.Column("reference", sa.Uuid),
    _text("actor"),
    timestamp_column("created_at"),
    sa.ForeignKeyConstraint(_stock_key, [stock.c.product_id, stock.c.warehouse_id]),
    sa.CheckConstraint(
        "reason IN ('received', 'adjusted', 'counted', 'damaged', 'lost', 'found', 'returned',"
        " 'sold', 'transferred')",
        name="reason",
    ),
    sa.CheckConstraint("delta <> 0 OR reason = 'counted'", name="delta"),
    sa.CheckConstraint("reason <> 'sold' OR (delta < 0 AND reference IS NOT NULL)", name="sold"),
    sa.CheckConstraint("reason <> 'transferred' OR reference IS NOT NULL", name="transferred"),
)
sa.Index("ix_stock_movement_product_id", movements.c.product_id, movements.c.number)
sa.Index(
    "uq_stock_movement_reference",
    movements.c.reference,
    movements.c.product_id,
    movements.c.warehouse_id,
    unique=True,
    postgresql_where=movements.c.reference.is_not(None),
)

reservations = sa.Table(
    "reservation",
    metadata,
    sa.Column("reservation_id", sa.Uuid, primary_key=True),
    sa.Column("order_id", sa.Uuid),
    sa.Column("customer_id", sa.Uuid),
    _text("status"),
    # the default is for a process of an older release, in the time of an update
    timestamp_column("reserved_at", server_default=sa.func.now()),
    timestamp_column("expires_at"),
    sa.CheckConstraint(
        "status IN ('held', 'committed', 'consumed', 'released', 'expired')", name="status"
    ),
    sa.CheckConstraint("expires_at <= reserved_at + interval '30 minutes'", name="extended"),
    sa.CheckConstraint("order_id IS NOT NULL OR status = 'released'", name="order"),
    # what a line repeats of its reservation; see there
    sa.UniqueConstraint("reservation_id", "status", "expires_at"),
)
sa.Index("ix_reservation_order_id", reservations.c.order_id, reservations.c.reservation_id)
sa.Index(
    "ix_reservation_overdue",
    reservations.c.expires_at,
    postgresql_where=reservations.c.status == HELD,
)

sa.Index(
    "ix_reservation_customer_id",
    reservations.c.customer_id,
    reservations.c.expires_at,
    postgresql_where=reservations.c.status == HELD,
)

# which parts of reservations were given back
partial_releases = sa.Table(
    "partial_release",
    metadata,
    sa.Column("release_id", sa.Uuid, primary_key=True),
    sa.Column("reservation_id", sa.ForeignKey(reservations.c.reservation_id), nullable=False),
)

reservation_lines = sa.Table(
    "reservation_line",
    metadata,
    sa.Column("reservation_id", sa.Uuid, primary_key=True),
    sa.Column("product_id", sa.Uuid, primary_key=True),
    sa.Column("warehouse_id", sa.Uuid, primary_key=True),
    # repeated here so that a product's live lines are one index away, and kept true by the
    # foreign key: a reservation's new status comes down by ON UPDATE CASCADE
    _text("status"),
    timestamp_column("expires_at"),
    # what is wanted, less what was given back in part: that is in `released`
    _units("quantity"),
    _units("consumed"),
    sa.Column("released", sa.BigInteger, server_default="0", nullable=False),
    sa.Column(
        "reserved",
        sa.BigInteger,
        sa.Computed(
            "CASE WHEN status IN ('held', 'committed') THEN quantity - consumed ELSE 0 END",
            persisted=True,
        ),
        nullable=False,
    ),
    _text("sku"),
    _text("name"),
    sa.Column("unit_amount", sa.BigInteger, nullable=False),
    _text("unit_currency"),
    sa.ForeignKeyConstraint(
        ["reservation_id", "status", "expires_at"],
        [reservations.c.reservation_id, reservations.c.status, reservations.c.expires_at],
        onupdate="CASCADE",
    ),
    sa.ForeignKeyConstraint(_stock_key, [stock.c.product_id, stock.c.warehouse_id]),
    sa.CheckConstraint("quantity >= 0 AND quantity + released > 0", name="quantity"),
    sa.CheckConstraint("released >= 0", name="released"),
    sa.CheckConstraint("0 <= consumed AND consumed <= quantity", name="consumed"),
    sa.CheckConstraint("consumed = 0 OR status <> 'held'", name="held"),
)
sa.Index(
    "ix_reservation_line_live",
    reservation_lines.c.product_id,
    reservation_lines.c.warehouse_id,
    postgresql_include=["reserved"],
    postgresql_where=reservation_lines.c.reserved > 0,
)
sa.Index(
    "ix_reservation_line_overdue",
    reservation_lines.c.product_id,
    reservation_lines.c.expires_at,
    postgresql_include=["reserved", "warehouse_id"],
    postgresql_where=reservation_lines.c.status == HELD,
)
