"""The tables of warehouses, stock and movements. The migration also creates triggers on them."""

import sqlalchemy as sa

from markethall.inventory.catalogue.sql.tables import metadata, products
from markethall.inventory.stock.domain import MAIN_WAREHOUSE
from markethall.shared.persistence.sql import timestamp_column

warehouses = sa.Table(
    "warehouse",
    metadata,
    sa.Column("warehouse_id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, server_default="0", nullable=False),
    sa.Column("active", sa.Boolean, server_default="true", nullable=False),
    sa.Column("version", sa.Integer, server_default="1", nullable=False),
    sa.CheckConstraint("priority >= 0", name="priority"),
    sa.CheckConstraint("version >= 1", name="version"),
    sa.CheckConstraint(f"active OR warehouse_id <> '{MAIN_WAREHOUSE}'", name="main"),
)

stock = sa.Table(
    "stock",
    metadata,
    sa.Column("product_id", sa.ForeignKey(products.c.product_id), primary_key=True),
    sa.Column("warehouse_id", sa.ForeignKey(warehouses.c.warehouse_id), primary_key=True),
    sa.Column("on_hand", sa.BigInteger, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False),
    # The sum of the reserved units of all reservation lines. Triggers update the sum, and a
    # constraint trigger checks at commit that it equals `reserved`.
    sa.Column("reserved_by_lines", sa.BigInteger, nullable=False, server_default="0"),
    # Units that may be sold before they arrive; triggers update this column. Outside the main
    # warehouse it is 0. It is above `backorder_limit` if the limit was lowered below the number of
    # units already sold as backorder.
    sa.Column("backorder", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("backorder_limit", sa.BigInteger, nullable=False, server_default="0"),
    # A copy of the product's threshold; triggers update the copy. When the available units fall to
    # the threshold or below, a trigger publishes StockLow.
    sa.Column("low_stock_threshold", sa.BigInteger),
    sa.CheckConstraint(
        "0 <= reserved AND 0 <= on_hand AND reserved <= on_hand + backorder", name="reserved"
    ),
    sa.CheckConstraint("0 <= backorder_limit AND backorder_limit <= backorder", name="backorder"),
)

sa.Index("ix_stock_warehouse_id", stock.c.warehouse_id)

movements = sa.Table(
    "stock_movement",
    metadata,
    sa.Column("movement_id", sa.Uuid, primary_key=True),
    # ascends within a stock row, because a movement gets its number while its stock row is locked
    sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("product_id", sa.Uuid, nullable=False),
    sa.Column("warehouse_id", sa.Uuid, nullable=False),
    sa.Column("delta", sa.BigInteger, nullable=False),
    sa.Column("on_hand_after", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("reference", sa.Uuid),
    sa.Column("actor", sa.Text, nullable=False),
    timestamp_column("created_at"),
    sa.ForeignKeyConstraint(
        ["product_id", "warehouse_id"], [stock.c.product_id, stock.c.warehouse_id]
    ),
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
