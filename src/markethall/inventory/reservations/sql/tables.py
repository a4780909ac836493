"""The tables of reservations. The migration also creates triggers on them."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from markethall.inventory.catalogue.sql.tables import metadata
from markethall.inventory.stock.sql.tables import stock
from markethall.shared.persistence.postgres import sql_literal
from markethall.shared.persistence.sql import timestamp_column

HELD: Final = sql_literal("held")

reservations = sa.Table(
    "reservation",
    metadata,
    sa.Column("reservation_id", sa.Uuid, primary_key=True),
    sa.Column("order_id", sa.Uuid),
    sa.Column("customer_id", sa.Uuid),
    sa.Column("status", sa.Text, nullable=False),
    # a default, because during a rolling update processes of the previous release insert rows
    # without this column
    timestamp_column("reserved_at", server_default=sa.func.now()),
    timestamp_column("expires_at"),
    sa.CheckConstraint(
        "status IN ('held', 'committed', 'consumed', 'released', 'expired')", name="status"
    ),
    sa.CheckConstraint("expires_at <= reserved_at + interval '91 days'", name="extended"),
    sa.CheckConstraint("order_id IS NOT NULL OR status = 'released'", name="order"),
    # the target of the foreign key of reservation_line, which copies these columns
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

# the ids of executed partial releases; a repeated request with the same id changes nothing
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
    # Copies of the reservation's columns, so that an index finds the held lines of a product. The
    # foreign key updates the copies with ON UPDATE CASCADE.
    sa.Column("status", sa.Text, nullable=False),
    timestamp_column("expires_at"),
    # the requested units minus `released`
    sa.Column("quantity", sa.BigInteger, nullable=False),
    sa.Column("consumed", sa.BigInteger, nullable=False),
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
    sa.Column("sku", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("unit_amount", sa.BigInteger, nullable=False),
    sa.Column("unit_currency", sa.Text, nullable=False),
    sa.Column("tax_class", sa.Text, nullable=False, server_default="standard"),
    sa.Column("weight_grams", sa.BigInteger),
    sa.Column("category", sa.Text),
    sa.Column("tags", ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.ForeignKeyConstraint(
        ["reservation_id", "status", "expires_at"],
        [reservations.c.reservation_id, reservations.c.status, reservations.c.expires_at],
        onupdate="CASCADE",
    ),
    sa.ForeignKeyConstraint(
        ["product_id", "warehouse_id"], [stock.c.product_id, stock.c.warehouse_id]
    ),
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
